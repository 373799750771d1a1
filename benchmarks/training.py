"""Time an epoch of `fit` beside PyTorch's bare loop and fastai's Learner, plain and distorted.

    python benchmarks/training.py [--images 10000] [--rounds 5] [--only parts]

Each of the three runs over its own loader, as its users have it, and PyTorch's and fastai's also over our BatchLoader,
which leaves the loops alone to compare. Tables as in epoch.py: rows in turn, with one thread and with two, beside the
bare matrix multiplies. A last table goes from PyTorch's bare loop to `fit`, one part after the other.
MNIST_FOUNDATIONS_DATA chooses the images; on a GPU, if there is one, everything is timed once.
"""
import argparse
from contextlib import redirect_stderr
from functools import partial
from os import devnull

import torch
from fastai.basics import DataLoader, DataLoaders, Learner
from fastai.callback.core import Callback
from fastai.optimizer import OptimWrapper
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader as TorchLoader, TensorDataset

from epoch import bare, begin, table, torch_net
from loading import target
from mnist_foundations.data import BatchLoader
from mnist_foundations.distortion import Distort
from mnist_foundations.net import softmax_cross_entropy
from mnist_foundations.optimizers import SGD
from mnist_foundations.training import TwoLayerNet, fit

LR, BATCH, NESTEROV = .1, 128, dict(momentum=.9, nesterov=True)

def by_fit(dl, augment, device, kind=SGD, loss_func=softmax_cross_entropy):
    net = TwoLayerNet(device=device)
    opt = kind(net.parameters(), LR, **NESTEROV)
    def run():
        with open(devnull, 'w') as nowhere, redirect_stderr(nowhere):          # its line an epoch
            fit(net, dl, None, opt, 1, loss_func, augment=augment)
    return run

def by_torch(dl, augment, device, net=None, kind=torch.optim.SGD, loss_func=cross_entropy):
    "The loop of PyTorch's own tutorials."
    net = net or torch_net(device)
    opt = kind(net.parameters(), LR, **NESTEROV)
    def run():
        for xb, yb in dl:
            if augment: xb = augment(xb)
            loss_func(net(xb), yb).backward()
            opt.step()
            opt.zero_grad()
    return run

class Distorting(Callback):
    "Distort the training batches of a `Learner`."
    def __init__(self, augment): self.augment = augment
    def before_batch(self):
        if self.training: self.learn.xb = (self.augment(self.x),)

def by_learner(dl, augment, device):
    "It has to validate, so that gets one image."
    one = BatchLoader(torch.zeros(1, 784, device=device), torch.zeros(1, dtype=torch.long, device=device), 1)
    opt_func = partial(OptimWrapper, opt=torch.optim.SGD, **NESTEROV)
    learn = Learner(DataLoaders(dl, one), torch_net(device), loss_func=cross_entropy, lr=LR, wd=0.,
                    opt_func=opt_func, cbs=[Distorting(augment)] if augment else [])
    def run():
        with learn.no_logging(): learn.fit(1)   # and no bar: nothing imports fastai.callback.progress
    return run

def epochs(x, y, augment, rounds, device, said):
    "The table of the three loops."
    dl, pairs = BatchLoader(x, y, BATCH, shuffle=True), TensorDataset(x, y)
    _, fit_row, *others = table(
        f'An epoch of 784-500-10, batches of {BATCH}, Nesterov, {len(x):,} images, {said}', {
            'the bare matrix multiplies': bare(x, BATCH, device), 'ours: fit': by_fit(dl, augment, device),
            'torch: bare loop over our BatchLoader': by_torch(dl, augment, device),
            'torch: bare loop over its DataLoader': by_torch(TorchLoader(pairs, BATCH, shuffle=True), augment, device),
            'fastai: Learner over our BatchLoader': by_learner(dl, augment, device),
            'fastai: Learner over its DataLoader': by_learner(DataLoader([*zip(x, y)], BATCH, shuffle=True), augment, device)},
        rounds).values()
    target('fit faster than all with loaders of their own, and than Learner', fit_row < min(others[1:]))

def parts(x, y, rounds, device):
    "From PyTorch's bare loop to `fit`, over the same loader: one part after the other becomes ours."
    dl = BatchLoader(x, y, BATCH, shuffle=True)
    def net(): return TwoLayerNet(device=device)
    ratios = table(f'From the bare loop to fit, {len(x):,} images', {
        "bare loop, all PyTorch's": by_torch(dl, None, device),
        'its SGD(foreach=True)': by_torch(dl, None, device, kind=partial(torch.optim.SGD, foreach=True)),
        'our net': by_torch(dl, None, device, net()),
        'our net and loss': by_torch(dl, None, device, net(), loss_func=softmax_cross_entropy),
        'our net, loss and optimizer': by_torch(dl, None, device, net(), SGD, softmax_cross_entropy),
        'ours: fit': by_fit(dl, None, device)}, rounds)
    target('fit at most 1.02 times the bare loop', ratios['ours: fit'] <= 1.02)

def main():
    given = argparse.ArgumentParser()
    given.add_argument('--images', type=int)
    given.add_argument('--rounds', type=int, default=5)
    given.add_argument('--only', choices=['epochs', 'parts'])
    options = given.parse_args()
    _, device, x, y = begin()
    order = torch.randperm(len(x))[:options.images].to(device)
    x, y = x[order], y[order]
    for threads in [1, 2] if device == 'cpu' else [1]:
        torch.set_num_threads(threads)
        for augment, said in ((None, 'as they are'), (Distort(), 'distorted')):
            if options.only != 'parts': epochs(x, y, augment, options.rounds, device, said)
        if options.only != 'epochs': parts(x, y, options.rounds, device)

if __name__ == '__main__': main()
