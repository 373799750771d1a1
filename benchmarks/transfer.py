"""How much of a net should learn from a few labels of other digits: the last layer, all of it, or each layer at its own rate.

    python benchmarks/transfer.py [--only short]

Writes mnist_foundations/results/transfer.csv, a row a run, after each run; what stands there is not run again, so that a
killed script goes on. Two cases: `other hands`, nets of MNIST's ten digits and the digits of scikit-learn's load_digits,
prepared by `as_mnist`; and `5 to 9`, nets of MNIST's 0 to 4, with a new last layer for 5 to 9. Which rows there are:

    before   `other hands` without any labels, prepared in four ways, all of them: nets of the seeds 0 to 4
    choose   1, 5, 10 and 50 labels a digit, each method at rates that double, until the best one has a worse one on each side:
             draws of labels with seeds 5, 6 and 7, nets of the same seeds
    report   at the rate that was best there: draws and nets 0 to 4
    short    a single run, for the test that makes it again; printed only

`accuracy` is measured on images of which no labels were drawn. In `other hands` one half of the 1,797 digits serves to choose
and the other to report; in `5 to 9` labels are drawn from the training images, and the validation images are halved. Nets are
those of chapter 11, four epochs on five sixths of the training images; every run is `fine_tune` of chapter 12, about 150
steps with distortion. `by layer` takes a factor of 0.1 or 0.3, whichever is better. One thread. Needs all of MNIST.
"""
import argparse, copy
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from time import perf_counter

import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

import mnist_foundations
from mnist_foundations.convolution import SmallConvNet, train_conv
from mnist_foundations.data import load_mnist, mnist_path, split_valid
from mnist_foundations.files import write_whole
from mnist_foundations.keeping import load_model, save_model
from mnist_foundations.training import predict
from mnist_foundations.transfer import as_mnist, cut_to_ink, fine_tune, fit_in_box, with_new_last_layer

FILE = Path(mnist_foundations.__file__).parent/'results'/'transfer.csv'
NETS = Path(__file__).resolve().parent.parent/'_run'/'transfer'
LABELS, CHOOSE, REPORT = (1, 5, 10, 50), (5, 6, 7), (0, 1, 2, 3, 4)
METHODS = {'from scratch': dict(start='untrained'), 'last layer': dict(n_free=1), 'all layers': dict(),
           'by layer, 0.3': dict(factor=.3), 'by layer, 0.1': dict(factor=.1)}
RANDOM = {'random features': dict(start='untrained', n_free=1)}
FIRST = .02

def other_hands():
    "The halves of load_digits, to choose by and to report on, as (pool, images to measure on): here the same images."
    digits = load_digits()
    x = torch.stack([as_mnist(image) for image in torch.from_numpy(digits.images).float()/16]).view(-1, 784)
    y = torch.from_numpy(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return [((x[half], y[half]), None) for half in order.tensor_split(2)]

def five_to_nine(train, valid):
    "5 to 9, as 0 to 4: labels from the training images, and half of the validation images to measure on, for choosing and for reporting."
    def new(x, y): return x[y > 4], y[y > 4] - 5
    x, y = new(*valid)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return [(new(*train), (x[half], y[half])) for half in order.tensor_split(2)]

def base_net(case, seed, train):
    "The net to start from, trained once and kept."
    file = NETS/f'{case} {seed}.safetensors'
    if not file.exists():
        x, y = train
        if case == '5 to 9': x, y = x[y < 5], y[y < 5]
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        with redirect_stderr(StringIO()): net, _ = train_conv(x, y, epochs=4, seed=seed)
        save_model(net, file)
    return load_model(file, SmallConvNet())

def stretched(image): return F.interpolate(image[None, None], size=(28, 28), mode='bilinear')[0, 0]

def in_the_middle(image):
    "The box of the ink in the middle of the frame."
    top, left = ((28 - side)//2 for side in image.shape)
    return F.pad(image, (left, 28 - image.shape[1] - left, top, 28 - image.shape[0] - top))

STEPS = {'stretched': stretched, 'cut, stretched': lambda image: stretched(cut_to_ink(image)),
         'cut, 20 pixels': lambda image: in_the_middle(fit_in_box(cut_to_ink(image))), 'and centred': as_mnist}

def before(step, seed, train):
    "What a net reads of all of load_digits, prepared by that step and those before it; as a row."
    digits, began = load_digits(), perf_counter()
    x = torch.stack([STEPS[step](image) for image in torch.from_numpy(digits.images).float()/16]).view(-1, 784)
    answers = predict(base_net('other hands', seed, train), x).argmax(1)
    return dict(purpose='before', case='other hands', method=step, labels=0, lr=None, seed=seed, images=len(x),
                accuracy=(answers == torch.from_numpy(digits.target)).float().mean().item(), version=mnist_foundations.__version__,
                threads=torch.get_num_threads(), seconds=round(perf_counter() - began, 2))

@torch.no_grad()
def settle(net, x):
    "Give each normalisation of a net that has learned nothing the mean and the deviation of what reaches it."
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms: norm.momentum = None              # the mean over all batches
    for xb in x.split(500): net.train()(xb)
    for norm in norms: norm.momentum = .1

def drawn(y, n, seed):
    "Places of n labels of each class, and which of all are left."
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    places, rest = torch.cat([order[y[order] == c][:n] for c in y.unique()]), torch.ones(len(y), dtype=torch.bool)
    rest[places] = False
    return places, rest

def one_run(case, pool, measured_on, method, labels, lr, seed, train, purpose):
    "Draw labels, fine-tune, measure; as a row."
    settings, (x, y) = dict((METHODS | RANDOM)[method]), pool
    places, rest = drawn(y, labels, seed)
    torch.manual_seed(seed)
    classes = len(y.unique())
    if settings.pop('start', None):
        net = SmallConvNet(n_classes=classes)
        if 'n_free' in settings: settle(net, train[0][:2000])
    else:
        net = copy.deepcopy(base_net(case, seed, train))
        if case == '5 to 9': net = with_new_last_layer(net, classes)
    began = perf_counter()
    with redirect_stderr(StringIO()): fine_tune(net, x[places], y[places], lr, seed=seed, **settings)
    seconds = perf_counter() - began
    x, y = measured_on or (x[rest], y[rest])
    accuracy = (predict(net, x).argmax(1) == y).float().mean().item()
    return dict(purpose=purpose, case=case, method=method, labels=labels, lr=lr, seed=seed, images=len(x), accuracy=accuracy,
                version=mnist_foundations.__version__, threads=torch.get_num_threads(), seconds=round(seconds, 2))

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=['short'], help='short: print this row, and write nothing')
    only = parser.parse_args().only
    torch.set_num_threads(1)
    x, y, x_valid, y_valid = split_valid(*load_mnist(mnist_path('full'), 'training'))
    train = x, y
    cases = {'other hands': other_hands(), '5 to 9': five_to_nine(train, (x_valid, y_valid))}
    if only: return print(pd.DataFrame([one_run('other hands', *cases['other hands'][1], 'last layer', 10, .02, 0, train, 'short')]).to_string())
    kept = pd.read_csv(FILE).to_dict('records') if FILE.exists() else []

    def there(**wanted): return next((row for row in kept if all(row[k] == v for k, v in wanted.items())), None)

    def keep(row):
        kept.append(row)
        write_whole(FILE, pd.DataFrame(kept).to_csv(index=False).encode())
        return row

    def run(purpose, case, method, labels, lr, seed):
        row = there(purpose=purpose, case=case, method=method, labels=labels, lr=lr, seed=seed)
        return (row or keep(one_run(case, *cases[case][purpose == 'report'], method, labels, lr, seed, train, purpose)))['accuracy']

    def mean(case, method, labels, lr): return sum(run('choose', case, method, labels, lr, seed) for seed in CHOOSE)/len(CHOOSE)

    def best(case, method, labels):
        "The rate with a worse one on each side, and its mean accuracy."
        found = {FIRST: mean(case, method, labels, FIRST)}
        while True:
            lr = max(found, key=found.get)
            missing = [rate for rate in (lr/2, lr*2) if rate not in found and FIRST/300 < rate < FIRST*1000]
            if not missing: return lr, found[lr]
            found[missing[0]] = mean(case, method, labels, missing[0])

    for step in STEPS:
        for seed in REPORT: there(purpose='before', method=step, seed=seed) or keep(before(step, seed, train))
    for case in cases:
        for labels in LABELS:
            rates = {method: best(case, method, labels) for method in (METHODS if case == 'other hands' else METHODS | RANDOM)}
            factor = max((method for method in rates if method.startswith('by layer')), key=lambda method: rates[method][1])
            for method, (lr, _) in rates.items():
                if method.startswith('by layer') and method != factor: continue
                for seed in REPORT: run('report', case, method, labels, lr, seed)
            print(case, labels, {method: (lr, round(a, 4)) for method, (lr, a) in rates.items()}, flush=True)

if __name__ == '__main__': main()
