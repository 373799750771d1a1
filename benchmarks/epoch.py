"""Time one epoch of training: our loop beside its peers and beside the matrix multiplies it can't do without.

    python benchmarks/epoch.py

Every row of a table runs once a round, and each round starts one row later, so that whatever else the machine
is doing hits all of them; a first round warms up and is not counted. `seconds` is the median over the rounds,
`ratio` the median of each round's ratio to the row marked 1.00, `from` and `to` the lowest and the highest.
MNIST_FOUNDATIONS_DATA chooses the images, and it all runs on the GPU if there is one. Without one it takes
one thread, or OMP_NUM_THREADS of them: several threads wait for each other, and where other work takes a core
they wait so long that the same epoch was seen to take 0.6 or 6 seconds.
"""
import os, sys
from contextlib import redirect_stdout
from functools import partial
from statistics import median
from time import perf_counter
from unittest.mock import patch

import torch
from fastai.basics import DataLoader, DataLoaders, Learner, SGD
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader as TorchLoader, TensorDataset

from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, one_hot
from mnist_foundations.linear import init_params, linear1, mnist_loss, train_epoch
from mnist_foundations.net import simple_net

LR = .1

def seconds(run, device):
    "How long `run` takes; what a GPU still has to do counts as well."
    if device == 'cuda': torch.cuda.synchronize()
    start = perf_counter()
    run()
    if device == 'cuda': torch.cuda.synchronize()
    return perf_counter() - start

def table(heading, rows, rounds, device):
    "Time `rows`, a dict from name to function, in turn, and print each beside the first; returns the ratios."
    names, times = list(rows), {name: [] for name in rows}
    for r in range(rounds + 1):
        print(f'  round {r} of {rounds}' + ' (warms up)'*(r == 0), file=sys.stderr, flush=True)
        for i in range(len(names)):
            name = names[(i + r) % len(names)]
            times[name].append(seconds(rows[name], device))
    times = {name: took[1:] for name, took in times.items()}
    print(f'\n{heading}; {rounds} rounds\n{"":50}{"seconds":>9}{"ratio":>8}{"from":>8}{"to":>8}')
    medians = {}
    for name, took in times.items():
        ratios = [t/b for t, b in zip(took, times[names[0]])]
        medians[name] = median(ratios)
        print(f'{name:50}{median(took):9.4f}{medians[name]:8.2f}{min(ratios):8.2f}{max(ratios):8.2f}')
    return medians

def target(text, met): print(f'target: {text}: {"met" if met else "MISSED"}', flush=True)

def fresh_params(device, hidden=500):
    "Parameters of the 784-hidden-10 net: w1, b1, w2, b2."
    shapes = [((784, hidden), 784**-.5), (hidden, 0), ((hidden, 10), hidden**-.5), (10, 0)]
    return [init_params(shape, std, device) for shape, std in shapes]

def ours(dl, loss_func, device):
    "A function that runs one epoch of our loop and net over `dl`."
    w1, b1, w2, b2 = params = fresh_params(device)
    return partial(train_epoch, lambda xb: simple_net(xb, w1, b1, w2, b2), LR, params, dl, loss_func)

def bare(x, batch_size, device):
    "A function that does an epoch's multiplies, five a batch: no new memory, no images to gather."
    w1, _, w2, _ = [p.detach() for p in fresh_params(device)]
    batches = x.split(batch_size)
    g, h, gh = (torch.randn(batch_size, n, device=device) for n in (10, 500, 500))
    out, gw1, gw2 = torch.empty_like(g), torch.empty_like(w1), torch.empty_like(w2)
    def run():
        for xb in batches:
            n = len(xb)
            torch.mm(xb, w1, out=h[:n])          # forward
            torch.mm(h[:n], w2, out=out[:n])
            torch.mm(h[:n].T, g[:n], out=gw2)    # backward; the gradient of the images is not wanted
            torch.mm(g[:n], w2.T, out=gh[:n])
            torch.mm(xb.T, gh[:n], out=gw1)
    return run

def torch_net(device): return nn.Sequential(nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 10)).to(device)

def torch_loop(dl, net):
    "A function that runs an epoch of `net` as PyTorch's own tutorials write it."
    opt = torch.optim.SGD(net.parameters(), lr=LR)
    def run():
        for xb, yb in dl:
            cross_entropy(net(xb), yb).backward()
            opt.step()
            opt.zero_grad()
    return run

def learner(dl, pairs, device):
    "A function that runs one epoch of fastai's `Learner`; it has to validate, so that gets one image."
    dls = DataLoaders(dl, DataLoader(pairs[:1], 1), device=device)
    learn = Learner(dls, torch_net(device), loss_func=nn.CrossEntropyLoss(), opt_func=SGD, lr=LR)
    def run():
        with learn.no_logging(): learn.fit(1)   # and no bar: nothing imports fastai.callback.progress
    return run

def two_layers(x, y, pairs, batch_size, rounds, device, said):
    our_dl, fastai_dl = BatchLoader(x, y, batch_size, True), DataLoader(pairs, batch_size, shuffle=True)
    return table(
        f'The two-layer net, batches of {batch_size:,}: 784-500-10, softmax cross-entropy, shuffled, {said}',
        {'the bare matrix multiplies': bare(x, batch_size, device),
         'ours: train_epoch, simple_net, BatchLoader': ours(our_dl, cross_entropy, device),
         "our loop over fastai's DataLoader": ours(fastai_dl, cross_entropy, device),
         'torch: DataLoader, nn.Sequential, optim.SGD': torch_loop(
             TorchLoader(TensorDataset(x, y), batch_size, shuffle=True), torch_net(device)),
         'fastai: Learner over its DataLoader': learner(fastai_dl, pairs, device)}, rounds, device)

def unchecked(run):
    "`run`, with what it asks of each batch's shapes and targets left out."
    nothing = lambda *args: None
    def without():
        with (patch('mnist_foundations.net.check_layer', nothing),
              patch('mnist_foundations.linear.check_targets', nothing)): run()
    return without

def begin():
    "Settle device, threads and seed, load the training images, and say what is measured on what."
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if 'OMP_NUM_THREADS' not in os.environ: torch.set_num_threads(1)
    torch.manual_seed(0)
    path = mnist_path()
    with redirect_stdout(sys.stderr): x, y = load_mnist(path, 'training', device=device)   # its bar: not into the tables
    where = torch.cuda.get_device_name() if device == 'cuda' else f'CPU, threads: {torch.get_num_threads()}'
    print(f'All {len(x):,} training images of {path.name}, on {where}, torch {torch.__version__}')
    return path, device, x, y

def main():
    path, device, x, y = begin()
    with redirect_stdout(sys.stderr): x37, y37 = load_mnist(path, 'training', [3, 7], device=device)
    pairs, said = list(zip(x, y)), f'{len(x):,} images'

    ratios = two_layers(x, y, pairs, 1000, 11, device, said)
    target('ours at most 1.2 times the bare multiplies', list(ratios.values())[1] <= 1.2)
    two_layers(x, y, pairs, 256, 3, device, said)

    y37 = (y37 == 3).float().unsqueeze(1)                                 # (n,) -> (n, 1)
    def chapter_2(dl):
        weights, bias = params = [init_params((784, 1), device=device), init_params(1, device=device)]
        return partial(train_epoch, lambda xb: linear1(xb, weights, bias), 1., params, dl)
    ratios = table(
        f"Chapter 02's epoch: 3 or 7, linear1, mnist_loss, batches of 256, shuffled, {len(x37):,} images",
        {'our loop over BatchLoader': chapter_2(BatchLoader(x37, y37, 256, True)),
         "our loop over fastai's DataLoader": chapter_2(DataLoader(list(zip(x37, y37)), 256, shuffle=True))},
        15, device)
    target("ours at least 3 times faster than over fastai's loader", list(ratios.values())[1] >= 3)

    checked = ours(BatchLoader(x, one_hot(y), 1000, True), mnist_loss, device)
    table(f'What the checks cost: the two-layer net, mnist_loss, batches of 1,000, shuffled, {said}',
          {'without check_layer and check_targets': unchecked(checked), 'with them, as exported': checked},
          9, device)

if __name__ == '__main__': main()
