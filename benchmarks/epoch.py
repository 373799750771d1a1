"""Time one epoch of training: our loop beside its peers and beside the matrix multiplies it can't do without.

    python benchmarks/epoch.py

On the CPU everything is timed twice, with one thread and with two; on a GPU, if there is one, once. The rows of a table
run in turn, once a round, and each round starts one row later, so that whatever else the machine is doing hits all of
them; a first round warms up and is not counted. `seconds` is the median over the rounds, `ratio` the median of each
round's ratio to the row marked 1.00, `from` and `to` the lowest and the highest. MNIST_FOUNDATIONS_DATA chooses the
images. Two threads need two idle cores: where other work takes one of them, they wait for each other, and the
same epoch was seen to take 0.6 or 6 seconds.
"""
import os, sys
from contextlib import redirect_stdout
from functools import partial
from statistics import median
from unittest.mock import patch

import torch
from fastai.basics import DataLoader, DataLoaders, Learner, SGD
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader as TorchLoader, TensorDataset

from loading import heading, interleaved, row, seconds, target
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path
from mnist_foundations.linear import init_params, linear1, train_epoch
from mnist_foundations.net import simple_net, softmax_cross_entropy

LR = .1

def table(text, rows, rounds):
    "Time `rows`, a dict from name to function, in turn, and print each beside the first; returns the ratios."
    times = dict(zip(rows, interleaved([partial(seconds, run) for run in rows.values()], rounds, text)))
    first, *_ = times.values()
    ratios = {name: [t/base for t, base in zip(took, first)] for name, took in times.items()}
    heading(f'{text}; threads: {torch.get_num_threads()}, {rounds} rounds', 'seconds', 'ratio', 'from', 'to')
    for name, r in ratios.items():
        row(name, f'{median(times[name]):.4f}', *(f'{f(r):.2f}' for f in (median, min, max)))
    return {name: median(r) for name, r in ratios.items()}

def fresh_params(device, hidden=500):
    "Parameters of the 784-hidden-10 net: w1, b1, w2, b2."
    shapes = [((784, hidden), 784**-.5), (hidden, 0), ((hidden, 10), hidden**-.5), (10, 0)]
    return [init_params(shape, std, device) for shape, std in shapes]

def ours(dl, device):
    "A function that runs one epoch of our loop and net over `dl`."
    params = fresh_params(device)
    return partial(train_epoch, lambda xb: simple_net(xb, *params), LR, params, dl, softmax_cross_entropy)

def unchecked(run):
    "`run`, with what it asks of each batch's shapes and targets left out."
    def without():
        with (patch('mnist_foundations.net.check_layer'),
              patch('mnist_foundations.net.class_indices', lambda predictions, targets: targets)): run()
    return without

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

def two_layers(x, y, batch_size, rounds, most, device):
    "The table of the two-layer net; `most` is the target for ours, in multiples of the bare multiplies."
    pairs, our_dl = list(zip(x, y)), BatchLoader(x, y, batch_size, shuffle=True)
    fastai_dl = DataLoader(pairs, batch_size, shuffle=True)
    torch_dl = TorchLoader(TensorDataset(x, y), batch_size, shuffle=True)
    ratios = table(f'784-500-10, softmax cross-entropy, batches of {batch_size:,}, shuffled, {len(x):,} images', {
        'the bare matrix multiplies': bare(x, batch_size, device),
        'ours: train_epoch, simple_net, BatchLoader': ours(our_dl, device),
        'ours without the checks of each batch': unchecked(ours(our_dl, device)),
        "our loop over fastai's DataLoader": ours(fastai_dl, device),
        'torch: DataLoader, nn.Sequential, optim.SGD': torch_loop(torch_dl, torch_net(device)),
        'fastai: Learner over its DataLoader': learner(fastai_dl, pairs, device)}, rounds)
    target(f'ours at most {most:.2f} times the bare multiplies', list(ratios.values())[1] <= most)

def chapter_2(x, y, device):
    "The table of chapter 02's epoch: 3 or 7."
    def epoch(dl):
        params = [init_params((784, 1), device=device), init_params(1, device=device)]
        return partial(train_epoch, lambda xb: linear1(xb, *params), 1., params, dl)
    ratios = table(f"Chapter 02: 3 or 7, linear1, mnist_loss, batches of 256, shuffled, {len(x):,} images", {
        'our loop over BatchLoader': epoch(BatchLoader(x, y, 256, shuffle=True)),
        "our loop over fastai's DataLoader": epoch(DataLoader(list(zip(x, y)), 256, shuffle=True))}, 15)
    target("ours at least 3 times faster than over fastai's loader", list(ratios.values())[1] >= 3)

def begin():
    "Settle device, threads and seed, load the training images, and say what is measured on what."
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if 'OMP_NUM_THREADS' not in os.environ: torch.set_num_threads(1)
    torch.manual_seed(0)
    path = mnist_path()
    with redirect_stdout(sys.stderr): x, y = load_mnist(path, 'training', device=device)   # its bar: not into the tables
    where = torch.cuda.get_device_name() if device == 'cuda' else f'a CPU with {os.cpu_count()} cores'
    print(f'All {len(x):,} training images of {path.name}, on {where}, torch {torch.__version__}')
    return path, device, x, y

def main():
    _, device, x, y = begin()
    three_or_seven = (y == 3) | (y == 7)
    x37, y37 = x[three_or_seven], (y[three_or_seven] == 3).float().unsqueeze(1)   # (n,) -> (n, 1)
    for threads in [1, 2] if device == 'cpu' else [1]:
        torch.set_num_threads(threads)
        two_layers(x, y, 1000, 11, 1.1, device)
        two_layers(x, y, 256, 7, 1.2, device)
        chapter_2(x37, y37, device)

if __name__ == '__main__': main()
