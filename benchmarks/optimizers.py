"""Chapter 08's searches: which rate suits which optimizer, which rule finds it, which weight decay helps.

    python benchmarks/optimizers.py [--only short]

Writes mnist_foundations/results/optimizers.csv, a row a run, after each run; what stands there is not run again, so that
a killed script goes on. All nets are 784-500-10 from the scaled start, and measured on the validation images, which
are a sixth of the training images; the test images stay closed. Which rows there are:

    rates    four optimizers, a constant rate and one cycle, seven rates each: 20,000 images, one epoch in batches of
             128, seeds 8 and 9
    rules    for each optimizer the rate that each rule reads off a rate test, and one cycle up to it: the same
             images and steps, seeds 0, 1 and 2; `lowest` is where the smoothed loss is lowest, `steepest` and `valley`
             are fastai's
    decays   1,000 images, 40 epochs in batches of 100, Nesterov's momentum, one cycle: four weight decays at three rates,
             seed 9
    decayed  each of these weight decays at its own best rate, by the loss and by the accuracy: seeds 0, 1 and 2
    short    one run of the kind of rates with seed 0, for the test that runs it again

One thread; needs all of MNIST. About six minutes.
"""
import argparse
from functools import partial
from pathlib import Path
from time import perf_counter

import pandas as pd
import torch
from fastai.callback.schedule import steep, valley
from fastprogress.fastprogress import progress_bar

import mnist_foundations
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, split_valid
from mnist_foundations.files import write_whole
from mnist_foundations.linear import calc_grad, init_params
from mnist_foundations.net import simple_net, softmax_cross_entropy, validate_epoch
from mnist_foundations.optimizers import SGD, Adam, lr_find, one_cycle

FILE = Path(mnist_foundations.__file__).parent/'results'/'optimizers.csv'
OPTIMIZERS = {'SGD': SGD, 'momentum': partial(SGD, momentum=.9),
              'Nesterov': partial(SGD, momentum=.9, nesterov=True), 'Adam': Adam}
SMALLEST = {'SGD': .05, 'momentum': .01, 'Nesterov': .01, 'Adam': .0005}
RATES = {name: [round(factor*lr, 6) for factor in (1, 2, 5, 10, 20, 50, 100)] for name, lr in SMALLEST.items()}
RULES = {'lowest': lambda rates, losses: rates[losses.argmin()].item(),
         'a third of the lowest': lambda rates, losses: rates[losses.argmin()].item()/3,
         'a tenth of the lowest': lambda rates, losses: rates[losses.argmin()].item()/10,
         'steepest': lambda rates, losses: steep(rates, losses, len(rates))[0],
         'valley': lambda rates, losses: valley(rates, losses, len(rates))[0]}
DECAYS, DECAY_RATES = (0, 1e-3, 3e-3, 1e-2), (.1, .3, 1)

def start_params(seed):
    "Parameters w1, b1, w2, b2 of 784-500-10, scaled."
    torch.manual_seed(seed)
    return [init_params(size, std) for size, std in zip(((784, 500), 500, (500, 10), 10), ((2/784)**.5, 0, (2/500)**.5, 0))]

def suggested(train, optimizer, rule, seed):
    "The rate that the rule reads off a test of this optimizer."
    params = start_params(seed)
    dl = BatchLoader(*train, 128, shuffle=True)
    found = lr_find(lambda xb: simple_net(xb, *params), dl, OPTIMIZERS[optimizer](params, lr=1.))
    return RULES[rule](torch.tensor(found.rates), torch.tensor(found.losses))

def one_run(piles, purpose, optimizer, schedule, rule, lr, weight_decay, seed, images, epochs):
    "Train one net, and return its row."
    (x, y), valid = piles
    x, y, batch_size = x[:images], y[:images], 100 if images == 1000 else 128
    if rule in RULES: lr = suggested((x, y), optimizer, rule, seed)
    params = start_params(seed)
    def model(xb): return simple_net(xb, *params)
    dl, opt = BatchLoader(x, y, batch_size, shuffle=True), OPTIMIZERS[optimizer](params, lr=lr, weight_decay=weight_decay)
    rate = one_cycle(lr, epochs*len(dl)) if schedule == 'one cycle' else lambda step: lr
    began, step = perf_counter(), 0
    for _ in range(epochs):
        for xb, yb in dl:
            opt.param_groups[0]['lr'] = rate(step)
            calc_grad(xb, yb, model, softmax_cross_entropy)
            opt.step()
            opt.zero_grad()
            step += 1
    seconds = perf_counter() - began
    valid_dl = BatchLoader(*valid, 1000)
    return dict(purpose=purpose, optimizer=optimizer, schedule=schedule, rule=rule, lr=lr, weight_decay=weight_decay,
                seed=seed, images=images, epochs=epochs,
                train_accuracy=validate_epoch(model, BatchLoader(x, y, 1000)),
                valid_loss=validate_epoch(model, valid_dl, softmax_cross_entropy),
                valid_accuracy=validate_epoch(model, valid_dl),
                version=mnist_foundations.__version__, threads=torch.get_num_threads(), seconds=round(seconds, 2))

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=['short'], help='run these rows, print them, and write nothing')
    only = parser.parse_args().only
    torch.set_num_threads(1)
    x, y, x_valid, y_valid = split_valid(*load_mnist(mnist_path('full'), 'training'))
    piles = (x, y), (x_valid, y_valid)

    short = [('short', 'Nesterov', 'one cycle', 'none', .2, 0, 0, 20_000, 1)]
    if only: return print(pd.DataFrame([one_run(piles, *each) for each in short]).to_string())
    kept = pd.read_csv(FILE).to_dict('records') if FILE.exists() else []

    def identity(purpose, optimizer, schedule, rule, lr, *rest):
        return purpose, optimizer, schedule, rule, None if rule in RULES else lr, *rest

    def run_all(runs):
        names = ('purpose', 'optimizer', 'schedule', 'rule', 'lr', 'weight_decay', 'seed', 'images', 'epochs')
        done = {identity(*(row[name] for name in names)) for row in kept}
        for each in progress_bar([run for run in runs if identity(*run) not in done]):
            kept.append(one_run(piles, *each))
            print(*kept[-1].values(), flush=True)
            write_whole(FILE, pd.DataFrame(kept).to_csv(index=False).encode())

    run_all(short)
    run_all([('rates', name, schedule, 'none', lr, 0, seed, 20_000, 1)
             for name in OPTIMIZERS for schedule in ('constant', 'one cycle') for lr in RATES[name] for seed in (8, 9)])
    run_all([('rules', name, 'one cycle', rule, None, 0, seed, 20_000, 1)
             for name in OPTIMIZERS for rule in RULES for seed in (0, 1, 2)])
    run_all([('decays', 'Nesterov', 'one cycle', 'none', lr, decay, 9, 1000, 40)
             for decay in DECAYS for lr in DECAY_RATES])
    tried = pd.DataFrame(kept).query("purpose == 'decays'")
    chosen = pd.concat([tried.sort_values('valid_loss').drop_duplicates('weight_decay'),
                        tried.sort_values('valid_accuracy').drop_duplicates('weight_decay', keep='last')])
    pairs = sorted(set(zip(chosen.weight_decay, chosen.lr)))
    run_all([('decayed', 'Nesterov', 'one cycle', 'none', lr, decay, seed, 1000, 40) for decay, lr in pairs for seed in (0, 1, 2)])

if __name__ == '__main__': main()
