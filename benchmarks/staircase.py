"""From the published recipe to 99.4%, one change a row: the staircase of chapter 10, and the choices behind its last row.

    python benchmarks/staircase.py [--only short]

Writes mnist_foundations/results/staircase.csv, a row a run, after each run; what stands there is not run again, so that a
killed script goes on. All nets are 784-500-10. Which rows there are:

    search   every step at rates that double, until the best one has a worse one on each side: seed 3, 8 epochs
    report   every step at its best rate: seeds 0, 1 and 2, 20 epochs; the last step 80
    choose   options of the step with elastic distortion, at rates that double as in search: seed 4, 10 epochs
    final    the last step, on all 60,000 training images: seeds 0, 1 and 2, 80 epochs
    short    a single epoch, for the test that runs a row again

All but final train on five sixths of the training images and are measured on the last sixth, the validation images. The
test images are opened for final only, once all else is there. One thread; needs all of MNIST.
"""
import argparse
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from time import perf_counter

import pandas as pd
import torch

import mnist_foundations
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, one_hot, split_valid
from mnist_foundations.distortion import Distort
from mnist_foundations.files import write_whole
from mnist_foundations.linear import init_params, mnist_loss
from mnist_foundations.net import softmax_cross_entropy, validate_epoch
from mnist_foundations.optimizers import SGD, one_cycle
from mnist_foundations.training import TwoLayerNet, fit

FILE = Path(mnist_foundations.__file__).parent/'results'/'staircase.csv'
RECIPE = dict(loss='mnist_loss', start='std 1', batch=1000, momentum=0., schedule='constant', decay=0., augment='none')
CHANGES = {                                      # a step is all changes up to it; the rate is where its search begins
    'published recipe': (dict(), 50),
    'softmax cross-entropy': (dict(loss='softmax cross-entropy'), 1),
    "Kaiming's start": (dict(start='Kaiming'), .5),
    'batches of 128': (dict(batch=128), .2),
    'Nesterov momentum': (dict(momentum=.9), .05),
    'one cycle': (dict(schedule='one cycle'), .1),
    'weight decay': (dict(decay=3e-5), .1),
    'affine distortion': (dict(augment='affine'), .1),
    'elastic distortion': (dict(augment='affine and elastic'), .1),
    'batches of 256': (dict(batch=256), .4)}      # as good by the rows of choose, and faster
OPTIONS = {'as it is': dict(), 'no decay': dict(decay=0.), 'decay 1e-4': dict(decay=1e-4), 'batches of 256': dict(batch=256)}
LOSSES = {'mnist_loss': mnist_loss, 'softmax cross-entropy': softmax_cross_entropy}

DISTORTIONS = {'none': lambda: None, 'affine': lambda: Distort(elastic=0), 'affine and elastic': Distort}

def steps():
    "The settings of each step, by its name, with the rate at which its search begins."
    settings = dict(RECIPE)
    for name, (change, lr) in CHANGES.items():
        settings = settings | change
        yield name, settings, lr

def started(start):
    "A 784-500-10 from Kaiming's start, or with all parameters of standard deviation 1."
    net = TwoLayerNet()
    if start == 'std 1':
        with torch.no_grad():
            for p in net.parameters(): p.copy_(init_params(p.shape))
    return net

def trained(pile, settings, augment, lr, seed, epochs):
    "A net trained on the pile by `settings`, its training loss at the end (nan if it stopped being finite), and the seconds."
    x, y = pile
    torch.manual_seed(seed)
    net = started(settings['start'])
    dl = BatchLoader(x, one_hot(y), settings['batch'], shuffle=True)
    opt = SGD(net.parameters(), lr, settings['momentum'], settings['momentum'] > 0, settings['decay'])
    schedule = one_cycle(lr, epochs*len(dl)) if settings['schedule'] == 'one cycle' else None
    began, train_loss = perf_counter(), float('nan')
    try:
        with redirect_stderr(StringIO()):      # a line an epoch
            history = fit(net, dl, None, opt, epochs, LOSSES[settings['loss']], schedule, augment=augment)
        train_loss = history['train_loss'][-1]
    except ValueError: pass                    # no longer finite: the parameters are those of the epoch before
    return net, train_loss, round(perf_counter() - began, 2)

def accuracy_of(net, pile): return validate_epoch(net.eval(), BatchLoader(*pile, 1000, shuffle=True))

def one_run(piles, purpose, step, settings, lr, seed, epochs):
    "Train one net, and return its row."
    pile, measured_on = piles
    net, train_loss, seconds = trained(pile, settings, DISTORTIONS[settings['augment']](), lr, seed, epochs)
    accuracy, final = accuracy_of(net, measured_on), purpose == 'final'
    return dict(purpose=purpose, step=step, **settings, lr=lr, seed=seed, epochs=epochs, images=len(pile[0]),
                train_loss=train_loss, valid_accuracy=None if final else accuracy, test_accuracy=accuracy if final else None,
                version=mnist_foundations.__version__, threads=torch.get_num_threads(), seconds=seconds)

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=['short'], help='run these rows, print them, and write nothing')
    only = parser.parse_args().only
    torch.set_num_threads(1)
    path = mnist_path('full')
    x, y = load_mnist(path, 'training')
    x_train, y_train, x_valid, y_valid = split_valid(x, y)
    split = (x_train, y_train), (x_valid, y_valid)
    staircase = {name: (settings, lr) for name, settings, lr in steps()}
    short = [(name, staircase[name][0], lr, 0, 1) for name, lr in (("Kaiming's start", .5), ('elastic distortion', .1))]
    if only: return print(pd.DataFrame([one_run(split, 'short', *each) for each in short]).to_string())
    kept = pd.read_csv(FILE).to_dict('records') if FILE.exists() else []

    def run(purpose, step, settings, lr, seed, epochs, piles=split):
        "The accuracy of the run, whose row is written if it isn't there."
        wanted = dict(purpose=purpose, step=step, lr=lr, seed=seed, epochs=epochs)
        for row in kept:
            if all(row[k] == v for k, v in wanted.items()): break
        else:
            row = one_run(piles, purpose, step, settings, lr, seed, epochs)
            kept.append(row)
            print(*row.values(), flush=True)
            write_whole(FILE, pd.DataFrame(kept).to_csv(index=False).encode())
        return row['test_accuracy'] if purpose == 'final' else row['valid_accuracy']

    def best_rate(purpose, step, settings, lr, seed, epochs):
        "The rate, of those that double from `lr` in both directions, that is better than the next on each side."
        def accuracy(rate): return run(purpose, step, settings, rate, seed, epochs)
        while accuracy(lr) < max(accuracy(2*lr), accuracy(lr/2)):
            lr = max(2*lr, lr/2, key=accuracy)
        return lr

    for each in short: run('short', *each)
    for name, change in OPTIONS.items():
        settings, lr = staircase['elastic distortion']
        best_rate('choose', name, settings | change, lr, 4, 10)
    for name, (settings, lr) in staircase.items():
        lr = best_rate('search', name, settings, lr, 3, 8)
        for seed in range(3): run('report', name, settings, lr, seed, 20)
    for seed in range(3): run('report', '80 epochs', settings, lr, seed, 80)
    for seed in range(3): run('final', '80 epochs', settings, lr, seed, 80, ((x, y), load_mnist(path, 'testing')))

if __name__ == '__main__': main()
