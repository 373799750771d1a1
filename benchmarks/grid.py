"""Chapter 03's diagnosis as a controlled experiment: three losses, two starts, a common grid of learning rates.

    python benchmarks/grid.py [--only short]

Writes mnist_foundations/results/grid.csv, a row a run, after each run; what stands there is not run again, so that a
killed script goes on. All nets are 784-500-10 and trained with batches of 1,000; which rows there are:

    search   every pair of loss and start at every rate: seed 3, 6 epochs
    choose   the four rates of each pair that searched best: seed 4, 30 epochs
    report   the rate of each pair that was best there: seeds 0, 1 and 2, 30 epochs
    recipe   ten seeds of the recipe exactly as published: all training images, mnist_loss, std 1, rate 50, 30
             epochs, measured on the test images
    short    a single epoch, for the test that runs a row again

all but recipe train on five sixths of the training images and are measured on the last sixth, the validation
images, by which search and choose decide; the test images are opened for the recipe only. One thread; needs all of MNIST.
"""
import argparse
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
from mnist_foundations.net import batch_accuracy, simple_net, softmax_cross_entropy, validate_epoch

FILE = Path(mnist_foundations.__file__).parent/'results'/'grid.csv'
LOSSES = {'mnist_loss': mnist_loss, 'binary cross-entropy': binary_cross_entropy_with_logits,
          'softmax cross-entropy': softmax_cross_entropy}
STARTS = {'std 1': (1, 1, 1, 1), 'scaled': ((2/784)**.5, 0, (2/500)**.5, 0)}
RATES = [.1, .3, 1, 3, 10, 30, 100, 300]

def start_params(start, seed):
    "Parameters w1, b1, w2, b2 of 784-500-10."
    torch.manual_seed(seed)
    return [init_params(size, std) for size, std in zip(((784, 500), 500, (500, 10), 10), STARTS[start])]

def one_run(piles, purpose, loss, start, lr, seed, epochs):
    "Train one net, and return its row."
    train, measured_on = piles
    params = start_params(start, seed)
    model = lambda xb: simple_net(xb, *params)
    dl = BatchLoader(*train, 1000, shuffle=True)
    began, train_loss = perf_counter(), float('nan')
    try:
        for _ in range(epochs): train_loss = train_epoch(model, lr, params, dl, LOSSES[loss])
    except ValueError: train_loss = float('nan')         # no longer finite: the parameters are those of the epoch before
    seconds = perf_counter() - began
    x, t = measured_on
    with torch.no_grad():
        hidden, hits = (x@params[0] + params[1]).relu(), model(x).argmax(1) == t.argmax(1)
    accuracy = validate_epoch(model, BatchLoader(x, t, 1000))
    read = sum(hits[t.argmax(1) == d].float().mean().item() > .5 for d in range(10))
    return dict(purpose=purpose, loss=loss, start=start, lr=lr, seed=seed, epochs=epochs, images=len(train[0]),
                train_loss=train_loss, valid_accuracy=None if purpose == 'recipe' else accuracy,
                test_accuracy=accuracy if purpose == 'recipe' else None,
                dead_units=(hidden == 0).all(0).float().mean().item(), digits_read=read,
                version=mnist_foundations.__version__, threads=torch.get_num_threads(), seconds=round(seconds, 2))

def best_rates(rows, purpose, n):
    "For each pair of loss and start the n rates with the best validation accuracy among the rows of a purpose."
    of = pd.DataFrame(rows).query('purpose == @purpose').sort_values('valid_accuracy', ascending=False)
    return {(loss, start): of.query('loss == @loss and start == @start').lr.tolist()[:n] for loss in LOSSES for start in STARTS}

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=['short'], help='run these rows, print them, and write nothing')
    only = parser.parse_args().only
    torch.set_num_threads(1)
    path = mnist_path('full')
    x, y = load_mnist(path, 'training')
    t = one_hot(y)
    xt, tt, xv, tv = split_valid(x, t)
    x_test, y_test = load_mnist(path, 'testing')
    split, published = ((xt, tt), (xv, tv)), ((x, t), (x_test, one_hot(y_test)))

    short = [('short', loss, 'scaled', lr, 0, 1) for loss, lr in (('mnist_loss', 10), ('softmax cross-entropy', 1))]
    if only: return print(pd.DataFrame([one_run(split, *each) for each in short]).to_string())
    kept = pd.read_csv(FILE).to_dict('records') if FILE.exists() else []

    def run_all(runs, piles):
        done = {tuple(row[k] for k in ('purpose', 'loss', 'start', 'lr', 'seed', 'epochs')) for row in kept}
        for each in progress_bar([run for run in runs if run not in done]):
            kept.append(one_run(piles, *each))
            print(*kept[-1].values(), flush=True)
            write_whole(FILE, pd.DataFrame(kept).to_csv(index=False).encode())

    run_all(short, split)
    run_all([('search', loss, start, lr, 3, 6) for loss in LOSSES for start in STARTS for lr in RATES], split)
    for purpose, epochs, seeds, before, n in (('choose', 30, [4], 'search', 4), ('report', 30, [0, 1, 2], 'choose', 1)):
        run_all([(purpose, *pair, lr, seed, epochs) for pair, rates in best_rates(kept, before, n).items()
                 for lr in rates for seed in seeds], split)
    run_all([('recipe', 'mnist_loss', 'std 1', 50, seed, 30) for seed in range(10)], published)

if __name__ == '__main__': main()
