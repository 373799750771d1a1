"""Two processes beside one, what a step costs, a slow link between two machines, and larger batches.

    python benchmarks/distributed.py [--only epoch|short]

Writes mnist_foundations/results/distributed.csv, rows after rows; what stands there is not run again. --only prints and
writes nothing. `seconds` is a mean, `low` and `high` are the tenth and the ninetieth percentile. Which rows there are:

    epoch     seconds of an epoch of 20,000 images, without distortion, five times in turn: one process with one thread and
              with two, two processes of a thread each, by hand and by DistributedDataParallel, and for two layers the bare
              matrix multiplies in one process
    step      one process, one thread: seconds of a step, by the size of the batch
    quantile  the same for two layers and batches of 256: from the fastest of 10,000 steps to the slowest, in forty parts, the
              last of them finer
    sum       two processes that do nothing else: seconds of an `all_reduce`, by its bytes
    link      two processes in two network namespaces, which are like two machines, with a link between them of a delay each
              way and a rate (slow_link.py; needs root on Linux, and is skipped elsewhere): seconds of a step
    batch     two layers, 5 epochs without distortion on 50,000 images, by the size of the batch: accuracy on the validation
              images, at rates that double (seeds 3, 4, 5, of which the worst
              counts), and at the best of them (seeds 0, 1, 2)
    short     an epoch of two layers on 2,000 images, for the test that runs a row again

Needs all of MNIST, and a machine that does nothing else.
"""
import argparse, io, os, subprocess, sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

import mnist_foundations
from mnist_foundations.convolution import SmallConvNet
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, split_valid
from mnist_foundations.distributed import AverageGradients, Shares, my_share, recipes, train_together, weighted_sum
from mnist_foundations.files import write_whole
from mnist_foundations.net import softmax_cross_entropy
from mnist_foundations.optimizers import SGD
from mnist_foundations.processes import Workers, process_group, rank, world_size
from mnist_foundations.training import TwoLayerNet, fit
from epoch import bare
from slow_link import ADDRESSES, NAMESPACES, inside, refused, slow_link

FILE = Path(mnist_foundations.__file__).parent/'results'/'distributed.csv'
NETS = {'two-layer': TwoLayerNet, 'conv': SmallConvNet}
HOW = [('one process', 1, 1), ('one process', 1, 2), ('by hand', 2, 1), ('DDP', 2, 1)]
LINKS = [(0, 0), (1, 1000), (5, 1000), (20, 1000), (1, 100), (1, 20), (20, 100)]         # delay in ms, rate in Mbit/s; 0 is no limit
ROUNDS, BATCHES, EPOCHS = 5, (256, 1024, 4096, 16384), 5

def images(n):
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        x, y = load_mnist(mnist_path(os.environ.get('MNIST_FOUNDATIONS_DATA', 'full')), 'training')
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:n]
    return x[chosen], y[chosen]

def spread(times): return dict(seconds=np.mean(times), low=np.quantile(times, .1), high=np.quantile(times, .9))

def one_epoch(name, how, threads, n):
    "In each process: seconds of an epoch, after a short one to warm up, and its loss."
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x, y = images(n)
    if how == 'bare multiplies':
        run = bare(x, recipes[name]['batch_size'], 'cpu')
        run()
        began = perf_counter()
        run()
        return perf_counter() - began, None
    net = NETS[name]()
    if how == 'DDP': model, hooks = DistributedDataParallel(net), []
    else: model, hooks = net, [AverageGradients()]
    opt = SGD(net.parameters(), .05, momentum=.9, nesterov=True)
    def loader(rows):
        dl = BatchLoader(x[rows], y[rows], recipes[name]['batch_size'], shuffle=True, generator=torch.Generator().manual_seed(0))
        return Shares(dl)
    with redirect_stderr(io.StringIO()):
        fit(model, loader(slice(1024)), None, opt, 1, hooks=hooks)
        return tuple(fit(model, loader(slice(n)), None, opt, 1, hooks=hooks).rows[0][key] for key in ('seconds', 'train_loss'))

def step_times(name, batch_size, steps):
    "Seconds of each step, without what the loop around it takes."
    torch.set_num_threads(1)
    x, y = images(batch_size)
    net = NETS[name]()
    opt, times, mine = SGD(net.parameters(), .01, momentum=.9, nesterov=True), [], my_share(batch_size)
    for _ in range(steps):
        began = perf_counter()
        softmax_cross_entropy(net(x[mine]), y[mine]).backward()
        if world_size() > 1: weighted_sum([p.grad for p in net.parameters()], 1/world_size())
        opt.step()
        opt.zero_grad()
        times.append(perf_counter() - began)
    return times[3:]

def sum_times(numbers):
    torch.set_num_threads(1)
    tensor, times = torch.zeros(numbers), []
    for _ in range(200):
        dist.barrier()
        began = perf_counter()
        dist.all_reduce(tensor)
        times.append(perf_counter() - began)
    return times[10:]

def epoch_rows(workers, n, rounds, nets=tuple(NETS)):
    "A row a setting: rounds in which each setting has its turn."
    for name in nets:
        settings = HOW + ([('bare multiplies', 1, 1), ('bare multiplies', 1, 2)] if name == 'two-layer' else [])
        seen = {setting: [] for setting in settings}
        for _ in range(rounds):
            for how, processes, threads in settings:
                seen[how, processes, threads].append(workers(processes, one_epoch, name, how, threads, n)[0])
        for (how, processes, threads), each in seen.items():
            seconds, losses = zip(*each)
            yield dict(purpose='epoch', net=name, how=how, processes=processes, threads=threads, images=n,
                       batch_size=recipes[name]['batch_size'], **spread(seconds), train_loss=losses[0])

def step_rows(workers):
    for name in NETS:
        for batch_size in (16, 32, 64, 128, 256, 512, 1024):
            times, = workers(1, step_times, name, batch_size, 203)
            yield dict(purpose='step', net=name, processes=1, threads=1, batch_size=batch_size, **spread(times))
    times, = workers(1, step_times, 'two-layer', 256, 10_003)
    for share in (*np.arange(40)/40, .99, .995, .998, .999, .9995, .9998, .9999, 1.):
        yield dict(purpose='quantile', net='two-layer', processes=1, threads=1, batch_size=256, share=share, seconds=np.quantile(times, share))

def sum_rows(workers):
    for numbers in (1, 100, 1000, 10_000, 26_234, 100_000, 397_510, 1_000_000, 4_000_000):
        yield dict(purpose='sum', processes=2, threads=1, n_bytes=4*numbers, **spread(workers(2, sum_times, numbers)[0]))

def link_worker():
    "What each of the two 'machines' runs: 43 steps of each net; the first prints their seconds."
    with process_group(120):
        for name in NETS:
            times = step_times(name, recipes[name]['batch_size'], 43)
            if not rank(): print(name, *times, flush=True)

def link_rows():
    if why := refused(): return print(f'no rows of the link: {why}')
    for delay, rate in LINKS:
        with slow_link(delay/1e3, rate*1e6):
            both = [subprocess.Popen(inside(namespace, [sys.executable, __file__, '--link-worker']), text=True, stdout=subprocess.PIPE,
                                     env=os.environ | dict(RANK=str(i), WORLD_SIZE='2', MASTER_ADDR=ADDRESSES[0], MASTER_PORT='29511',
                                                           GLOO_SOCKET_IFNAME=f'mnist_tun{i}', OMP_NUM_THREADS='1'))
                    for i, namespace in enumerate(NAMESPACES)]
            lines = [process.communicate(timeout=600)[0] for process in both][0]
        for line in lines.splitlines():
            name, *times = line.split()
            yield dict(purpose='link', net=name, processes=2, threads=1, batch_size=recipes[name]['batch_size'], delay_ms=delay, mbit=rate,
                       **spread([float(t) for t in times]))

@cache
def piles():
    x, y, *valid = split_valid(*load_mnist(mnist_path('full'), 'training'))
    return x, y, valid

def batch_row(batch_size, lr, seed):
    "Train two layers in this process."
    x, y, valid = piles()
    torch.manual_seed(seed)
    try:
        with redirect_stderr(io.StringIO()):
            row = train_together(TwoLayerNet(), x, y, lr, batch_size, 3e-5, EPOCHS, seed, valid=valid).rows[-1]
    except ValueError: row = dict(train_loss=None, batch_accuracy=0., seconds=None)       # no longer finite
    return dict(purpose='batch', net='two-layer', processes=1, threads=torch.get_num_threads(), batch_size=batch_size, lr=lr, seed=seed,
                epochs=EPOCHS, images=len(x), train_loss=row['train_loss'], valid_accuracy=row['batch_accuracy'], seconds=row['seconds'])

def batch_rows():
    for batch_size in BATCHES:
        tried = {}
        while (best := max(tried, key=tried.get, default=None)) is None or not {best/2, best*2} <= tried.keys():
            for rate in (.4,) if best is None else (best/2, best*2):
                if rate in tried: continue
                rows = [batch_row(batch_size, rate, seed) for seed in (3, 4, 5)]
                tried[rate] = min(row['valid_accuracy'] for row in rows)     # at too high a rate some fail and some don't
                yield from rows
        for seed in range(3): yield batch_row(batch_size, best, seed)

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=['epoch', 'short'], help='run these rows, print them, and write nothing')
    parser.add_argument('--link-worker', action='store_true', help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.link_worker: return link_worker()
    workers = Workers(2)
    if given.only:
        rows = epoch_rows(workers, 20_000, ROUNDS) if given.only == 'epoch' else epoch_rows(workers, 2000, 1, ['two-layer'])
        return print(pd.DataFrame(rows).to_string(index=False))
    kept = pd.read_csv(FILE).to_dict('records') if FILE.exists() else []
    made = {'epoch': lambda: epoch_rows(workers, 20_000, ROUNDS), 'step': lambda: step_rows(workers), 'sum': lambda: sum_rows(workers),
            'link': link_rows, 'batch': batch_rows,
            'short': lambda: (row | dict(purpose='short') for row in epoch_rows(workers, 2000, 1, ['two-layer']))}
    for purpose, rows in made.items():
        if purpose in {row['purpose'] for row in kept}: continue
        new = []
        for row in rows() or ():
            new.append(row | dict(version=mnist_foundations.__version__))
            print(*new[-1].values(), flush=True)
        kept += new
        write_whole(FILE, pd.DataFrame(kept).to_csv(index=False).encode())

if __name__ == '__main__': main()
