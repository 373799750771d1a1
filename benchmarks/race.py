"""As fast as can be: how many seconds two cores need to 98, 99 and 99.4%, with three nets of chapters 09 and 11.

    python benchmarks/race.py [--only short]

Writes mnist_foundations/results/race.csv, a row a run, after each run; what stands there is not run again, so that a
killed script goes on. All runs are Nesterov's momentum and one cycle in batches of 128. `lr` is the highest rate,
`distortion` multiplies the usual amounts of chapter 10, and `seconds` are those of the training alone: neither of loading
the images before it nor of measuring after it. Which rows there are:

    search    first one epoch without distortion, at rates that double, until the best one has a worse one on each side;
              then more and more epochs, each with the distortion that was best so far and with the next larger one. Seed
              3; where it reaches a target, the same with seeds 4 and 5, and their median must reach it
    race      for each net and target the setting that reached it with the fewest epochs: seeds 0 to 4. Two targets may
              have the same setting; a target that no setting reached has no row
    bfloat16  the small net for one epoch in float32 and one in bfloat16 (by autocast), in turn, three times; of 20
              batches only on a processor that doesn't compute in bfloat16 itself, which `native_bfloat16` says
    short     a single epoch of each net, for the test that runs a row again

Only race trains on all 60,000 images and is measured on the test images, which are opened once the search is done. All
else trains on five sixths of them and is measured on the last sixth, the validation images. search and short have one
thread, and two run side by side; the others have two threads, and need a machine that does nothing else: there two
threads that wait for each other can take twenty times as long. Needs all of MNIST.
"""
import argparse, os
from contextlib import redirect_stderr
from functools import lru_cache
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter

import pandas as pd
import torch

import mnist_foundations
from mnist_foundations.convolution import LeNet5, SmallConvNet
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, split_valid
from mnist_foundations.files import write_whole
from mnist_foundations.net import softmax_cross_entropy
from mnist_foundations.optimizers import SGD, one_cycle
from mnist_foundations.training import TwoLayerNet, fit
from distortion_amounts import distortion
from staircase import accuracy_of

FILE = Path(mnist_foundations.__file__).parent/'results'/'race.csv'
TARGETS, EPOCHS, AMOUNTS = [.98, .99, .994], [1, 2, 3, 5, 8, 12, 20, 30], [0., .3, 1.]
NETS = {                                         # its class, decay, the rate where its search begins, the most epochs
    'two layers': (TwoLayerNet, 3e-5, .2, 20), 'LeNet-5': (LeNet5, 5e-4, .1, 5), 'small net': (SmallConvNet, 5e-4, .2, 12)}
RUN = 'purpose', 'net', 'epochs', 'lr', 'distortion', 'seed', 'dtype'
SHORT = [('short', name, 1, .2, 0., 0, 'float32') for name in NETS]

def native_bfloat16(): return any(torch.cpu.get_capabilities().get(name) for name in ('avx512_bf16', 'amx_bf16', 'bf16'))

@lru_cache
def split():
    "The pile to train with, and the validation images."
    x, y, x_valid, y_valid = split_valid(*load_mnist(mnist_path('full'), 'training'))
    return (x, y), (x_valid, y_valid)

def trained(pile, name, epochs, lr, amount, seed, dtype):
    "A net trained on the pile, its training loss at the end (nan if it stopped being finite), and the seconds."
    torch.manual_seed(seed)
    kind, decay, *_ = NETS[name]
    net, dl, augment = kind(), BatchLoader(*pile, 128, shuffle=True), distortion('all' if amount else 'none', amount)
    opt = SGD(net.parameters(), lr, momentum=.9, nesterov=True, weight_decay=decay)
    cast = torch.autocast('cpu', torch.bfloat16, enabled=dtype == 'bfloat16')
    net.forward, loss = cast(net.forward), cast(softmax_cross_entropy)
    began, train_loss = perf_counter(), float('nan')
    try:
        with redirect_stderr(StringIO()):      # a line an epoch
            history = fit(net, dl, None, opt, epochs, loss, one_cycle(lr, epochs*len(dl)), augment=augment)
        train_loss = history['train_loss'][-1]
    except ValueError: pass                    # no longer finite: the parameters are those of the epoch before
    return net, train_loss, round(perf_counter() - began, 2)

def one_run(piles, purpose, name, epochs, lr, amount, seed, dtype='float32'):
    "Train one net, and return its row."
    pile, measured_on = piles
    net, train_loss, seconds = trained(pile, name, epochs, lr, amount, seed, dtype)
    accuracy, race = round(accuracy_of(net, measured_on), 6), purpose == 'race'    # float32's dust is no tie-break
    return dict(zip(RUN, (purpose, name, epochs, lr, amount, seed, dtype))) | dict(
        images=len(pile[0]), train_loss=train_loss, valid_accuracy=None if race else accuracy,
        test_accuracy=accuracy if race else None, native_bfloat16=native_bfloat16() if purpose == 'bfloat16' else None,
        version=mnist_foundations.__version__, threads=torch.get_num_threads(), seconds=seconds)

def row_beside(run):
    "The row of a run that is made beside another one, in a process with one thread."
    torch.set_num_threads(1)
    return one_run(split(), *run)

def fastest(name, accuracies):
    "By target, the epochs, rate and distortion of a net that reach it. `accuracies` makes a list of them from runs."
    def best(settings):
        tried = dict(zip(settings, accuracies([('search', name, *each, 3, 'float32') for each in settings])))
        return max(tried, key=tried.get), max(tried.values())
    *_, lr, most = NETS[name]
    while (better := best([(1, factor*lr, 0.) for factor in (1, .5, 2)])[0][1]) != lr: lr = better
    found, amount = {}, 0.
    for epochs in EPOCHS[:EPOCHS.index(most) + 1]:
        left = [target for target in TARGETS if target not in found]
        if not left: break
        setting, accuracy = best([(epochs, lr, each) for each in AMOUNTS[AMOUNTS.index(amount):][:2]])
        amount = setting[2]
        if accuracy >= left[0]: accuracy = median(accuracies([('search', name, *setting, i, 'float32') for i in (3, 4, 5)]))
        found |= {target: setting for target in left if target <= accuracy}
    for target in TARGETS: print(name, target, found.get(target, 'not reached'), flush=True)
    return found

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=['short'], help='run these rows, print them, and write nothing')
    only = parser.parse_args().only
    if only: return print(pd.DataFrame([row_beside(each) for each in SHORT]).to_string())
    kept = pd.read_csv(FILE).to_dict('records') if FILE.exists() else []
    def there(): return {tuple(row[name] for name in RUN): row['valid_accuracy'] for row in kept}

    def run_all(runs, make):
        "Write the rows that aren't there: `make` makes rows of runs."
        for row in make([run for run in runs if run not in there()]):
            kept.append(row)
            print(*row.values(), flush=True)
            write_whole(FILE, pd.DataFrame(kept).to_csv(index=False).encode())
        return [there()[run] for run in runs]

    with get_context('spawn').Pool(2) as pool:
        def beside(runs): return run_all(runs, lambda runs: pool.imap(row_beside, runs))
        beside(SHORT)
        chosen = {(name, *setting): None for name in NETS for setting in fastest(name, beside).values()}
    torch.set_num_threads(min(2, os.cpu_count()))
    def in_turn(piles, runs): run_all(runs, lambda runs: (one_run(piles, *run) for run in runs))
    native, ((x, y), valid) = native_bfloat16(), split()
    few = slice(None if native else 20*128)
    in_turn(((x[few], y[few]), valid),
            [('bfloat16', 'small net', 1, .2, 0., seed, dtype) for seed in range(3) for dtype in ('float32', 'bfloat16')])
    in_turn([load_mnist(mnist_path('full'), pile) for pile in ('training', 'testing')],
            [('race', *setting, seed, 'float32') for seed in range(5) for setting in chosen])

if __name__ == '__main__': main()
