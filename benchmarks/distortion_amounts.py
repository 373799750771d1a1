"""How much distortion, and of which kind: the experiment of chapter 10 on what each is worth.

    python benchmarks/distortion_amounts.py [--only short]

Writes mnist_foundations/results/distortion_amounts.csv, a row a run, after each run; what stands there is not run again.
All nets are 784-500-10, trained for 5 epochs with the settings of chapter 10's staircase on five sixths of the training
images and measured on the last sixth, the validation images. `amount` multiplies the usual amounts. Which rows there are:

    search   every kind and amount at four rates: seed 3
    report   at the rate that was best there: seeds 0, 1 and 2
    short    a single epoch, for the test that runs a row again

One thread; needs all of MNIST.
"""
import argparse

import pandas as pd
import torch

import mnist_foundations
from mnist_foundations.data import load_mnist, mnist_path, split_valid
from mnist_foundations.distortion import Distort
from mnist_foundations.files import write_whole
from staircase import FILE, accuracy_of, steps, trained

RESULT = FILE.with_name('distortion_amounts.csv')
RATES = [.2, .4, .8, 1.6]
USUAL = dict(degrees=10, scale=.1, shear=.1, shift=1, elastic=.8)
KINDS = {'shift': ['shift'], 'turn': ['degrees'], 'width and height': ['scale'], 'slant': ['shear'],
         'affine': ['shift', 'degrees', 'scale', 'shear'], 'elastic': ['elastic'], 'all': list(USUAL)}
CASES = [('none', 0.), *((kind, 1.) for kind in KINDS), *(('all', amount) for amount in (.5, 2., 3.))]

def distortion(kind, amount):
    "Only the amounts of the kind, times `amount`."
    if kind == 'none': return None
    return Distort(**{name: amount*usual if name in KINDS[kind] else 0. for name, usual in USUAL.items()})

def one_run(piles, purpose, kind, amount, lr, seed, epochs):
    "Train one net, and return its row."
    pile, measured_on = piles
    *_, (_, settings, _) = steps()
    net, train_loss, seconds = trained(pile, settings, distortion(kind, amount), lr, seed, epochs)
    return dict(purpose=purpose, kind=kind, amount=amount, lr=lr, seed=seed, epochs=epochs, images=len(pile[0]),
                train_loss=train_loss, valid_accuracy=accuracy_of(net, measured_on),
                version=mnist_foundations.__version__, threads=torch.get_num_threads(), seconds=seconds)

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=['short'], help='run these rows, print them, and write nothing')
    only = parser.parse_args().only
    torch.set_num_threads(1)
    x, y = load_mnist(mnist_path('full'), 'training')
    x_train, y_train, x_valid, y_valid = split_valid(x, y)
    piles = (x_train, y_train), (x_valid, y_valid)
    kept = pd.read_csv(RESULT).to_dict('records') if RESULT.exists() else []

    def run(purpose, kind, amount, lr, seed, epochs):
        wanted = dict(purpose=purpose, kind=kind, amount=amount, lr=lr, seed=seed, epochs=epochs)
        for row in kept:
            if all(row[name] == value for name, value in wanted.items()): return row['valid_accuracy']
        kept.append(one_run(piles, purpose, kind, amount, lr, seed, epochs))
        print(*kept[-1].values(), flush=True)
        write_whole(RESULT, pd.DataFrame(kept).to_csv(index=False).encode())
        return kept[-1]['valid_accuracy']

    short = ('all', 1., .1, 0, 1)
    if only: return print(pd.DataFrame([one_run(piles, 'short', *short)]).to_string())
    run('short', *short)
    for kind, amount in CASES:
        best = max(RATES, key=lambda lr: run('search', kind, amount, lr, 3, 5))
        for seed in range(3): run('report', kind, amount, best, seed, 5)

if __name__ == '__main__': main()
