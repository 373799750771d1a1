"""The nets that travel with the package and read people's own digits: what they are trained on, and how well they read.

    python benchmarks/reading.py [--only short]

Writes mnist_foundations/results/reading.csv, a row a run, after each run; what stands there is not run again. Which rows
there are:

    choose   the small convolutional net, trained on MNIST as chapter 11 does, with changed pens, with digits made of strokes,
             and with both: seeds 0, 1 and 2, 8 epochs
    ship     the four nets of mnist_foundations/weights/, which this script writes, with a model card: the net chosen above,
             30 epochs, two layers, one layer, and average images: seed 0
    short    one epoch of a net of `choose`, for the test that runs a row again; printed only

All are trained on five sixths of MNIST's training images. `photos` are photographs and drawings that the package's
`photograph` makes of 3,000 validation images; for `ship` of 3,000 test images, which are opened once all is chosen.
`other_hands` are the 1,797 digits of scikit-learn's load_digits. A picture for which `see` refuses to name a digit counts
as misread. Needs all of MNIST.
"""
import argparse
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch import nn

import mnist_foundations
from mnist_foundations.choices import accuracy_interval
from mnist_foundations.convolution import SmallConvNet
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, split_valid
from mnist_foundations.distortion import Distort
from mnist_foundations.files import write_whole
from mnist_foundations.handwriting import change_pens, handwriting, photograph
from mnist_foundations.keeping import save_model
from mnist_foundations.optimizers import SGD, one_cycle
from mnist_foundations.reading import fit_temperature, see
from mnist_foundations.training import TwoLayerNet, fit, predict
from mnist_foundations.transfer import as_mnist

PACKAGE = Path(mnist_foundations.__file__).parent
FILE, WEIGHTS = PACKAGE/'results'/'reading.csv', PACKAGE/'weights'
STROKES, PHOTOS = 10_000, 3_000
CHANGES = {'as in chapter 11': (False, 0), 'changed pens': (True, 0), 'strokes': (False, STROKES), 'pens and strokes': (True, STROKES)}

class Augment:
    "Distortion, and then another pen."
    def __init__(self, pens): self.pens, self.distort = pens, Distort()
    def __call__(self, xb):
        xb = self.distort(xb)
        return change_pens(xb) if self.pens else xb

def trained(net, pile, pens, strokes, epochs, lr, seed, decay=5e-4):
    "The net, trained, and the seconds that took. torch's random numbers have been seeded before the net was made."
    (x, y), began = pile, perf_counter()
    if strokes:
        more_x, more_y = handwriting(strokes, seed)
        x, y = torch.cat([x, more_x]), torch.cat([y, more_y])
    dl = BatchLoader(x, y, 128, shuffle=True)
    opt = SGD(net.parameters(), lr, momentum=.9, nesterov=True, weight_decay=decay)
    with redirect_stderr(StringIO()):             # a line an epoch
        fit(net, dl, None, opt, epochs, schedule=one_cycle(lr, epochs*len(dl)), augment=Augment(pens))
    return net, perf_counter() - began

def average_net(x, y):
    "The nearest average image as one linear layer: 2 m·x - m·m is largest where the distance of x to m is smallest."
    means, net = torch.stack([x[y == digit].mean(0) for digit in range(10)]), nn.Linear(784, 10)
    with torch.no_grad():
        net.weight.copy_(2*means)
        net.bias.copy_(-(means**2).sum(1))
    return net

def photographed(x, y, seed):
    "What is seen of photographs of images, 0 where no digit was found; their labels; and which were seen."
    rng, seen = np.random.default_rng(seed), []
    for image in x[:PHOTOS].view(-1, 28, 28).numpy():
        image, problem = see(photograph(image, rng)[0])
        seen.append(None if problem else image)
    found = torch.tensor([image is not None for image in seen])
    images = torch.stack([torch.zeros(28, 28) if image is None else image for image in seen])
    return images.view(-1, 784), y[:PHOTOS], found

def other_hands():
    "The digits of load_digits, prepared as chapter 12 does, and their labels."
    digits = load_digits()
    images = [as_mnist(image) for image in torch.from_numpy(digits.images).float()/16]
    return torch.stack(images).view(-1, 784), torch.from_numpy(digits.target)

def share_right(net, x, y, found=True): return ((predict(net, x).argmax(1) == y) & found).float().mean().item()

@torch.no_grad()
def temperature(net, x, y): return fit_temperature(net.eval()(x), y)

def cool(net, t):
    "Divide the last layer by the temperature, so that the softmax of the scores is calibrated."
    last = [net.w2, net.b2] if isinstance(net, TwoLayerNet) else list(net.parameters())[-2:]
    with torch.no_grad():
        for p in last: p.div_(t)

def row_of(purpose, change, net, measured, lr, seed, epochs, images, t, seconds):
    "A run as a row."
    numbers = sum(p.numel() for p in net.parameters())
    return dict(purpose=purpose, change=change, lr=lr, seed=seed, epochs=epochs, images=images, numbers=numbers, **measured,
                temperature=t, version=mnist_foundations.__version__, threads=torch.get_num_threads(), seconds=round(seconds, 2))

def one_choice(change, seed, epochs, pile, valid, photos, others):
    "A row of `choose`."
    torch.manual_seed(seed)
    pens, strokes = CHANGES[change]
    net, seconds = trained(SmallConvNet(), pile, pens, strokes, epochs, .1, seed)
    measured = dict(accuracy=share_right(net, *valid), photos=share_right(net, *photos), other_hands=share_right(net, *others))
    return row_of('choose', change, net, measured, .1, seed, epochs, len(pile[0]) + strokes, None, seconds)

def shipped(pile):
    "The nets to ship, each with its rate, its epochs, how many images it was trained on, and the seconds."
    torch.manual_seed(0)
    yield 'small_conv', .1, 30, STROKES, *trained(SmallConvNet(), pile, True, STROKES, 30, .1, 0)
    torch.manual_seed(0)
    yield 'two_layer', .2, 40, STROKES, *trained(TwoLayerNet(100), pile, True, STROKES, 40, .2, 0, decay=3e-5)
    torch.manual_seed(0)
    yield 'linear', .05, 5, STROKES, *trained(nn.Linear(784, 10), pile, True, STROKES, 5, .05, 0, decay=0.)
    began = perf_counter()
    yield 'average', None, 0, 0, average_net(*pile), perf_counter() - began

def card(rows):
    "The model card."
    lines = [f"| `{row['change']}` | {row['numbers']:,} | {row['epochs']} | "
             + ' | '.join(interval(row[name], n) for name, n in (('accuracy', 10_000), ('photos', PHOTOS), ('other_hands', 1_797)))
             + f" | {row['temperature']:.2f} |" for row in rows]
    return '\n'.join([CARD, *lines, '', AFTER, ''])

def interval(share, n):
    low, high = accuracy_interval(round(share*n), n)
    return f'{share:.2%} ({low:.2%} to {high:.2%})'

CARD = """# The nets in this folder

Four nets that read a (n, 784) batch of images like MNIST's, written by `save_model` as safetensors and read by `load_reader`. `python benchmarks/reading.py` trains them, on one CPU thread, and writes this card; its rows stand in `results/reading.csv`.

- **Data.** Five sixths of MNIST's training images (50,000, seed 0 of `split_valid`; LeCun, Cortes and Burges, CC BY-SA 3.0), distorted and with changed pens. All but `average` also saw 10,000 digits made of strokes, which `handwriting` draws. No photograph of a person's digit was used.
- **Choices and temperature** by the other sixth, the validation images. Scores are divided by the temperature; the division is part of the last layer, so the softmax of the scores gives calibrated probabilities.
- **License.** Apache 2.0, as the rest of the package.

Read correctly, with 95% intervals: MNIST's 10,000 test images; photographs and drawings that `photograph` makes of 3,000 of them; and scikit-learn's `load_digits`, which nobody trained on.

| net | numbers | epochs | test images | photographs | other hands | temperature |
| --- | --- | --- | --- | --- | --- | --- |"""

AFTER = """**What they fail on.** Letters and other signs: each gets one of ten digits, often with confidence, since the nets know nothing else. Digits turned by more than about 30 degrees or upside down. Strokes so thick that loops are filled. Two digits that touch. What `see` can't tell from the paper: ink much fainter than a shadow beside it. They have not been tested on digits of other scripts."""

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=['short'], help='short: print this row, and write nothing')
    only = parser.parse_args().only
    torch.set_num_threads(1)
    path = mnist_path('full')
    x, y, x_valid, y_valid = split_valid(*load_mnist(path, 'training'))
    piles = (x, y), (x_valid, y_valid), photographed(x_valid, y_valid, 0), other_hands()
    if only: return print(pd.DataFrame([one_choice('pens and strokes', 0, 1, *piles)]).to_string())
    kept = pd.read_csv(FILE).to_dict('records') if FILE.exists() else []
    def keep(row):
        kept.append(row)
        print({name: row[name] for name in ('purpose', 'change', 'seed', 'accuracy', 'photos', 'other_hands', 'seconds')}, flush=True)
        write_whole(FILE, pd.DataFrame(kept).to_csv(index=False).encode())
    for change in CHANGES:
        for seed in range(3):
            if not any(row['purpose'] == 'choose' and row['change'] == change and row['seed'] == seed for row in kept):
                keep(one_choice(change, seed, 8, *piles))
    if any(row['purpose'] == 'ship' for row in kept): return
    _, valid, photos, others = piles
    test = load_mnist(path, 'testing')
    order = torch.randperm(len(test[1]), generator=torch.Generator().manual_seed(0))      # not in the order of the labels
    test_photos = photographed(test[0][order], test[1][order], 1)
    rows = []
    for name, lr, epochs, strokes, net, seconds in shipped((x, y)):
        images, labels, found = photos
        t = temperature(net, images[found], labels[found])
        cool(net, t)
        measured = dict(accuracy=share_right(net, *test), photos=share_right(net, *test_photos), other_hands=share_right(net, *others))
        WEIGHTS.mkdir(exist_ok=True)
        save_model(net, WEIGHTS/f'{name}.safetensors')
        rows.append(row_of('ship', name, net, measured, lr, 0, epochs, len(x) + strokes, t, seconds))
    for row in rows: keep(row)
    write_whole(WEIGHTS/'README.md', card(rows).encode())

if __name__ == '__main__': main()
