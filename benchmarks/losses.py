"""Chapter 07's comparison: six losses for one net, each at its own best learning rate.

    python benchmarks/losses.py [--only short]

Writes mnist_foundations/results/losses.csv, a row a run, after each run; what stands there is not run again, so that a
killed script goes on. All nets are 784-500-10 with the scaled start, and trained by plain steps in batches of 250:

    search   every loss at six rates: seed 3, one epoch
    choose   the rate that searched best, one half of it and twice as much: seed 4, four epochs
    report   the rate that was best there: seeds 0, 1 and 2, four epochs
    half     half of that rate, with the same seeds, for a loss of which some reported runs collapsed and others didn't
    short    one epoch, for the test that runs a row again

All rows train on five sixths of the training images and are measured on the last sixth, the validation images. One
thread; needs all of MNIST.
"""
import argparse
from functools import partial
from pathlib import Path
from time import perf_counter

import pandas as pd
import torch
from fastprogress.fastprogress import progress_bar
from torch.nn.functional import binary_cross_entropy_with_logits

import mnist_foundations
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, one_hot, split_valid
from mnist_foundations.files import write_whole
from mnist_foundations.linear import init_params, mnist_loss, train_epoch
from mnist_foundations.net import simple_net, softmax_cross_entropy, validate_epoch

FILE = Path(mnist_foundations.__file__).parent/'results'/'losses.csv'
RATES = [.1, .3, 1, 3, 10, 30]

def squared_error_sigmoid(scores, targets): return (scores.sigmoid() - targets).square().mean()

def squared_error_softmax(scores, targets): return (scores.softmax(1) - targets).square().mean()

LOSSES = {'mnist_loss': mnist_loss,
          'squared error, sigmoid': squared_error_sigmoid,
          'squared error, softmax': squared_error_softmax,
          'binary cross-entropy': binary_cross_entropy_with_logits,
          'softmax cross-entropy': softmax_cross_entropy,
          'the same, smoothed by 0.1': partial(softmax_cross_entropy, smoothing=.1)}

def one_run(piles, purpose, loss, lr, seed, epochs):
    "Train one net, and return its row."
    train, (x, t) = piles
    torch.manual_seed(seed)
    params = [init_params(size, std) for size, std in (((784, 500), (2/784)**.5), (500, 0), ((500, 10), (2/500)**.5), (10, 0))]
    model = lambda xb: simple_net(xb, *params)
    dl = BatchLoader(*train, 250, shuffle=True)
    began, train_loss = perf_counter(), float('nan')
    try:
        for _ in range(epochs): train_loss = train_epoch(model, lr, params, dl, LOSSES[loss])
    except ValueError: train_loss = float('nan')         # no longer finite: the parameters are those of the epoch before
    seconds = perf_counter() - began
    return dict(purpose=purpose, loss=loss, lr=lr, seed=seed, epochs=epochs, images=len(train[0]), train_loss=train_loss,
                valid_accuracy=validate_epoch(model, BatchLoader(x, t, 1000)), version=mnist_foundations.__version__,
                threads=torch.get_num_threads(), seconds=round(seconds, 2))

def best_rate(rows, purpose, loss):
    "The rate with the best validation accuracy among the rows of a purpose and a loss."
    of = pd.DataFrame(rows).query('purpose == @purpose and loss == @loss')
    return of.sort_values('valid_accuracy').lr.tolist()[-1]

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=['short'], help='run these rows, print them, and write nothing')
    only = parser.parse_args().only
    torch.set_num_threads(1)
    x, y = load_mnist(mnist_path('full'), 'training')
    xt, tt, xv, tv = split_valid(x, one_hot(y))
    piles = (xt, tt), (xv, tv)
    short = [('short', loss, lr, 0, 1) for loss, lr in (('squared error, softmax', 3.), ('softmax cross-entropy', .3))]
    if only: return print(pd.DataFrame([one_run(piles, *each) for each in short]).to_string())
    kept = pd.read_csv(FILE).to_dict('records') if FILE.exists() else []

    def run_all(runs):
        done = {tuple(row[k] for k in ('purpose', 'loss', 'lr', 'seed', 'epochs')) for row in kept}
        for each in progress_bar([run for run in runs if run not in done]):
            kept.append(one_run(piles, *each))
            print(*kept[-1].values(), flush=True)
            write_whole(FILE, pd.DataFrame(kept).to_csv(index=False).encode())

    run_all(short)
    run_all([('search', loss, lr, 3, 1) for loss in LOSSES for lr in RATES])
    run_all([('choose', loss, round(best_rate(kept, 'search', loss)*factor, 3), 4, 4) for loss in LOSSES for factor in (.5, 1, 2)])
    run_all([('report', loss, best_rate(kept, 'choose', loss), seed, 4) for loss in LOSSES for seed in range(3)])
    report = pd.DataFrame(kept).query('purpose == "report"').groupby('loss').valid_accuracy
    collapsed = [loss for loss in LOSSES if report.min()[loss] < .5 < report.max()[loss]]
    run_all([('half', loss, best_rate(kept, 'report', loss)/2, seed, 4) for loss in collapsed for seed in range(3)])

if __name__ == '__main__': main()
