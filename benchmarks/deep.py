"""Chapter 06's repairs compared: nets of ten layers, each at its own best learning rate.

    python benchmarks/deep.py [--only short]

Writes mnist_foundations/results/deep.csv, a row a run, after each run; what stands there is not run again, so that a
killed script goes on. The deep nets are 784, nine hidden layers of 100, 10; the shallow ones 784-100-10. All are
trained with softmax cross-entropy and batches of 100 on five sixths of the training images, and measured on the rest, the
validation images. Which rows there are:

    search   every net at every rate: seed 3, 2 epochs
    report   the rate of each net that was best there: seeds 0, 1 and 2, 2 epochs
    short    a single epoch, for the test that runs a row again

The test images stay closed. One thread; needs all of MNIST.
"""
import argparse
from pathlib import Path
from time import perf_counter

import pandas as pd
import torch
from fastprogress.fastprogress import progress_bar

import mnist_foundations
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, split_valid
from mnist_foundations.deep import DeepNet
from mnist_foundations.files import write_whole
from mnist_foundations.linear import train_epoch
from mnist_foundations.net import softmax_cross_entropy, validate_epoch

FILE = Path(mnist_foundations.__file__).parent/'results'/'deep.csv'
DEEP, SHALLOW = [784] + [100]*9 + [10], [784, 100, 10]
NETS = {'sigmoid, two layers': (SHALLOW, torch.sigmoid, {}),
        'sigmoid, plain': (DEEP, torch.sigmoid, {}),
        'sigmoid, weights x4': (DEEP, torch.sigmoid, dict(gain=4)),
        'sigmoid, x4, centred': (DEEP, torch.sigmoid, dict(gain=4, centre=.5)),
        'sigmoid, normalised': (DEEP, torch.sigmoid, dict(norm=True)),
        'sigmoid, shortcuts': (DEEP, torch.sigmoid, dict(shortcut=True)),
        'ReLU, two layers': (SHALLOW, torch.relu, dict(gain=2**.5)),
        'ReLU, plain': (DEEP, torch.relu, {}),
        'ReLU, start √2': (DEEP, torch.relu, dict(gain=2**.5)),
        'ReLU, normalised': (DEEP, torch.relu, dict(norm=True)),
        'ReLU, shortcuts': (DEEP, torch.relu, dict(shortcut=True))}
RATES = [.01, .03, .1, .3, 1, 3, 10]

def one_run(piles, purpose, name, lr, seed, epochs):
    "Train one net, and return its row."
    train, valid = piles
    sizes, between, options = NETS[name]
    torch.manual_seed(seed)
    model = DeepNet(sizes, between, **options)
    dl = BatchLoader(*train, 100, shuffle=True)
    began, train_loss = perf_counter(), float('nan')
    try:
        for _ in range(epochs): train_loss = train_epoch(model, lr, model.parameters(), dl, softmax_cross_entropy)
        accuracy = validate_epoch(model, BatchLoader(*valid, 1000))
    except ValueError: accuracy = train_loss = float('nan')          # no longer finite
    return dict(purpose=purpose, net=name, lr=lr, seed=seed, epochs=epochs, images=len(train[0]), train_loss=train_loss,
                valid_accuracy=accuracy, version=mnist_foundations.__version__, threads=torch.get_num_threads(),
                seconds=round(perf_counter() - began, 2))

def best_rates(rows):
    "For each net the rate with the best validation accuracy among the rows of the search, of equal ones the first."
    of = pd.DataFrame(rows).query('purpose == "search"').sort_values('valid_accuracy', ascending=False, kind='stable')
    return {name: of[of.net == name].lr.iloc[0] for name in NETS}

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=['short'], help='run these rows, print them, and write nothing')
    only = parser.parse_args().only
    torch.set_num_threads(1)
    x, y, x_valid, y_valid = split_valid(*load_mnist(mnist_path('full'), 'training'))
    piles = (x, y), (x_valid, y_valid)

    short = [('short', name, .1, 0, 1) for name in ('ReLU, start √2', 'ReLU, normalised')]
    if only: return print(pd.DataFrame([one_run(piles, *each) for each in short]).to_string())
    kept = pd.read_csv(FILE).to_dict('records') if FILE.exists() else []

    def run_all(runs):
        done = {tuple(row[k] for k in ('purpose', 'net', 'lr', 'seed', 'epochs')) for row in kept}
        for each in progress_bar([run for run in runs if run not in done]):
            kept.append(one_run(piles, *each))
            print(*kept[-1].values(), flush=True)
            write_whole(FILE, pd.DataFrame(kept).to_csv(index=False).encode())

    run_all(short)
    run_all([('search', name, lr, 3, 2) for lr in RATES for name in NETS])
    run_all([('report', name, lr, seed, 2) for name, lr in best_rates(kept).items() for seed in (0, 1, 2)])

if __name__ == '__main__': main()
