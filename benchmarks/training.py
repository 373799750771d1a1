"""Time training: `fit` beside PyTorch's own loop and fastai's Learner, with and without distortion, and to an accuracy.

    python benchmarks/training.py

The first three tables are made as in epoch.py, rows in turn. PyTorch's loop and fastai's Learner run over their own
loaders, as their users have them, and over our BatchLoader, which leaves the loops alone to compare. The last table
trains from the same start with the same distortions, optimizer and schedule, by `fit` and by `Learner`, an epoch of
each in turn, and reads the clock of each after the first epoch that ends at 98% and at 99% of the test images or more;
measuring doesn't count. PyTorch and fastai get their labels as integers, as their users do. MNIST_FOUNDATIONS_DATA
chooses the images, and it all runs on the GPU if there is one.
"""
import sys
from contextlib import redirect_stdout
from functools import partial
from statistics import median

import torch
from fastai.basics import DataLoader, DataLoaders, Learner
from fastai.callback.core import Callback
from fastai.optimizer import OptimWrapper
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader as TorchLoader, TensorDataset

from epoch import bare, begin, table, torch_net
from loading import heading, row, seconds, target
from mnist_foundations.data import BatchLoader, load_mnist, one_hot
from mnist_foundations.net import validate_epoch
from mnist_foundations.training import SGD, Distort, TwoLayerNet, _step, fit, one_cycle, softmax_cross_entropy

LR, BATCH = .1, 128
momentum = dict(momentum=.9, nesterov=True)

def by_fit(dl, augment, device):
    net = TwoLayerNet(device=device)
    opt = SGD(net.parameters(), LR, **momentum)
    def run():
        with redirect_stdout(sys.stderr): fit(net, dl, None, opt, 1, augment=augment)   # its bar: not into the tables
    return run

def by_torch(dl, augment, device):
    "The loop of PyTorch's own tutorials."
    net = torch_net(device)
    opt = torch.optim.SGD(net.parameters(), LR, **momentum)
    def run():
        for xb, yb in dl:
            if augment: xb = augment(xb)
            cross_entropy(net(xb), yb).backward()
            opt.step()
            opt.zero_grad()
    return run

class Distorting(Callback):
    "Distort the training batches of a `Learner`."
    def __init__(self, augment): self.augment = augment
    def before_batch(self):
        if self.training: self.learn.xb = (self.augment(self.x),)

def learner(dl, augment, device, weight_decay=0.):
    "It has to validate, so that gets one image."
    one = BatchLoader(torch.zeros(1, 784, device=device), torch.zeros(1, dtype=torch.long, device=device), 1)
    return Learner(DataLoaders(dl, one), torch_net(device), loss_func=cross_entropy, lr=LR, wd=weight_decay,
                   opt_func=partial(OptimWrapper, opt=torch.optim.SGD, **momentum), cbs=[Distorting(augment)] if augment else [])

def by_learner(dl, augment, device):
    learn = learner(dl, augment, device)
    def run():
        with learn.no_logging(): learn.fit(1)   # and no bar: nothing imports fastai.callback.progress
    return run

def epochs(x, y, augment, rounds, device, said):
    ours, theirs = BatchLoader(x, one_hot(y), BATCH, shuffle=True), BatchLoader(x, y, BATCH, shuffle=True)
    torchs, fastais = TorchLoader(TensorDataset(x, y), BATCH, shuffle=True), DataLoader([*zip(x, y)], BATCH, shuffle=True)
    return table(f'An epoch of 784-500-10, batches of {BATCH}, Nesterov, softmax cross-entropy, {said}',
                 {'the bare matrix multiplies': bare(x, BATCH, device), 'ours: fit': by_fit(ours, augment, device),
                  'torch: its own loop over its DataLoader': by_torch(torchs, augment, device),
                  'fastai: Learner over its DataLoader': by_learner(fastais, augment, device),
                  'torch: its own loop over our BatchLoader': by_torch(theirs, augment, device),
                  'fastai: Learner over our BatchLoader': by_learner(theirs, augment, device)}, rounds)

def same_start(net, torch_net):
    "Copy our parameters into PyTorch's layers, whose weights are the transpose of ours."
    with torch.no_grad():
        for layer, w, b in ((torch_net[0], net.w1, net.b1), (torch_net[2], net.w2, net.b2)):
            layer.weight.copy_(w.T)
            layer.bias.copy_(b)

def time_to(x, y, dl_test, seed, device, n_epochs=10, decay=3e-5):
    "Train by both in turn, an epoch at a time; a dict from name and goal to the seconds and the epochs that it took."
    torch.manual_seed(seed)
    ours, theirs = BatchLoader(x, one_hot(y), BATCH, shuffle=True), BatchLoader(x, y, BATCH, shuffle=True)
    rate, augment, done = one_cycle(.2, n_epochs*len(ours)), Distort(), {'fit': 0, 'Learner': 0}
    net, learn = TwoLayerNet(device=device), learner(theirs, augment, device, decay)
    same_start(net, learn.model)
    opt = SGD(net.parameters(), .2, weight_decay=decay, **momentum)
    class Rate(Callback):
        def before_batch(self):
            if self.training: self.opt.set_hyper('lr', rate(done['Learner']*len(ours) + self.iter))
    learn.add_cb(Rate())
    learn.create_opt()
    def by_fit():
        with redirect_stdout(sys.stderr):
            fit(net, ours, None, opt, 1, schedule=lambda i: rate(done['fit']*len(ours) + i), augment=augment)
    def by_learner():
        with learn.no_logging(): learn.fit(1, reset_opt=False)
    clock, reached = dict.fromkeys(done, 0.), {}
    for e in range(n_epochs):
        print(f'  seed {seed}, epoch {e + 1} of {n_epochs}', file=sys.stderr, flush=True)
        for name, run, model in (('fit', by_fit, net), ('Learner', by_learner, learn.model))[::-1 if e % 2 else 1]:
            clock[name] += seconds(run)
            done[name] += 1
            accuracy = validate_epoch(model.eval(), dl_test)
            for goal in (.98, .99):
                if accuracy >= goal: reached.setdefault((name, goal), (clock[name], done[name]))
    return reached

def times_to(x, y, dl_test, device):
    runs = [time_to(x, y, dl_test, seed, device) for seed in range(3)]
    heading('Time to a test accuracy: 10 epochs, one cycle, distorted, 3 seeds, medians', 'seconds', 'from', 'to', 'epochs', 'images/s')
    for goal in (.98, .99):
        medians = {}
        for name in ('fit', 'Learner'):
            took = [run.get((name, goal), (float('inf'), 0)) for run in runs]
            s, n = median([t for t, _ in took]), median([n for _, n in took])
            medians[name] = s
            row(f'{name}: {goal:.0%}', f'{s:.1f}', f'{min(took)[0]:.1f}', f'{max(took)[0]:.1f}', n, f'{n*len(x)/s:,.0f}')
        if min(medians.values()) == float('inf'): print(f'{goal:.0%} was not reached in most runs')
        else: target(f'fit reaches {goal:.0%} sooner than Learner', medians['fit'] < medians['Learner'])

def main():
    path, device, x, y = begin()
    with redirect_stdout(sys.stderr): x_test, y_test = load_mnist(path, 'testing', device=device)
    t, dl_test = one_hot(y), BatchLoader(x_test, one_hot(y_test), 1000)

    for augment, said in ((None, 'as they are'), (Distort(), 'distorted')):
        ratios = list(epochs(x, y, augment, 5, device, f'{len(x):,} images, {said}').values())
        target('fit is faster than both over their own loaders', ratios[1] < min(ratios[2:4]))
        target('and than both over our BatchLoader', ratios[1] < min(ratios[4:]))

    net, distort = TwoLayerNet(device=device), Distort()
    opt = SGD(net.parameters(), LR, **momentum)
    def steps():
        for _ in range(100): _step(net, x[:BATCH], t[:BATCH], opt, softmax_cross_entropy)
    def distortions():
        for _ in range(100): distort(x[:BATCH])
    ratios = table(f'A batch of {BATCH}, a hundred times', {'the training step': steps, 'distorting it': distortions}, 9)
    target('distorting costs less than the step', list(ratios.values())[1] < 1)
    times_to(x, y, dl_test, device)

if __name__ == '__main__': main()
