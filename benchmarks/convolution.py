"""The small convolutional net of chapter 11: what each part of its recipe is worth, and what it reads of the test images.

    python benchmarks/convolution.py [--only short|choices]

Writes mnist_foundations/results/convolution.csv, a row a run, after each run; what stands there is not run again, so that a
killed script goes on. Which rows there are:

    search   the recipe, and each change of it, at rates that double, until the best one has a worse one on each side:
             seed 3, 2 epochs
    report   at the rate that was best there: seeds 0, 1 and 2, 5 epochs
    long     the recipe for as long as it is then used, at rates as in search: seed 4, 20 epochs
    final    the recipe on all 60,000 training images: seeds 0, 1 and 2, 20 epochs; and LeNet-5 in the same way, 10 epochs
    vote     seeds 3 and 4 too, and then all five nets, whose probabilities are added up
    wide     the recipe with three times as many channels: seed 0, 10 epochs
    short    a single epoch, for the test that runs a row again

search, report and long train on five sixths of the training images and are measured on the last sixth, the validation
images, with one thread. The others are measured on the test images, which are opened once all choices are there, and use two threads;
`misread` lists those that were misread, as number:answer, numbered as in MNIST's original file. Needs all of MNIST.
"""
import argparse
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import mnist_foundations
from mnist_foundations.convolution import LeNet5, SmallConvNet
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, split_valid
from mnist_foundations.distortion import Distort, image_numbers
from mnist_foundations.files import write_whole
from mnist_foundations.keeping import Checkpoint
from mnist_foundations.optimizers import SGD, one_cycle
from mnist_foundations.training import History, TwoLayerNet, fit, predict

FILE = Path(mnist_foundations.__file__).parent/'results'/'convolution.csv'
NETS = Path(__file__).resolve().parent.parent/'_run'/'convolution'         # checkpoints of the nets that vote

def without_norm():
    "The small net with a bias for each channel, and no normalisation."
    net = SmallConvNet()
    for i, layer in enumerate(net.layers):
        if isinstance(layer, nn.BatchNorm2d):
            net.layers[i] = nn.Identity()
            conv = next(net.layers[j] for j in range(i, -1, -1) if isinstance(net.layers[j], nn.Conv2d))
            conv.bias = nn.Parameter(torch.zeros(len(conv.weight)))
    return net

def three_times_wider(): return SmallConvNet((48, 96, 192))

NETS_BY_NAME = {'small net': SmallConvNet, 'no normalisation': without_norm, 'LeNet-5': LeNet5, 'two layers': TwoLayerNet,
                'three times wider': three_times_wider}
RECIPE = dict(net='small net', distortion=1., decay=5e-4)
CHANGES = {'the recipe': dict(), 'half the distortion': dict(distortion=.5), 'no distortion': dict(distortion=0.),
           'a tenth of the decay': dict(decay=5e-5), 'no normalisation': dict(net='no normalisation'),
           'LeNet-5': dict(net='LeNet-5'), 'two layers': dict(net='two layers')}

def distortion(share):
    "`Distort` with that share of its usual amounts; None where it is 0."
    return Distort(10*share, .1*share, .1*share, share, .8*share) if share else None

def trained(pile, settings, lr, seed, epochs, checkpoint=None):
    "A net trained on the pile by `settings`, its training loss at the end (nan if it stopped being finite), and the seconds."
    torch.manual_seed(seed)
    net, dl = NETS_BY_NAME[settings['net']](), BatchLoader(*pile, 128, shuffle=True)
    opt = SGD(net.parameters(), lr, momentum=.9, nesterov=True, weight_decay=settings['decay'])
    hooks = [Checkpoint(checkpoint, settings | dict(lr=lr, seed=seed, epochs=epochs))] if checkpoint else []
    history = History()
    try:
        with redirect_stderr(StringIO()):             # a line an epoch
            fit(net, dl, None, opt, epochs, schedule=one_cycle(lr, epochs*len(dl)),
                augment=distortion(settings['distortion']), hooks=hooks, history=history)
    except ValueError: return net, float('nan'), sum(history['seconds'])       # as it was an epoch before
    return net, history['train_loss'][-1], sum(history['seconds'])

def row_of(purpose, change, settings, lr, seed, epochs, images, probabilities, labels, train_loss, numbers, seconds):
    "A run as a row: its settings, and what the probabilities for `labels` come to."
    answers = probabilities.argmax(1).tolist()
    misread = [f'{i}:{answer}' for i, (answer, label) in enumerate(zip(answers, labels.tolist())) if answer != label]
    accuracy, on_test = 1 - len(misread)/len(labels), purpose in ('final', 'vote', 'wide')
    return dict(purpose=purpose, change=change, **settings, lr=lr, seed=seed, epochs=epochs, images=images, numbers=numbers,
                train_loss=train_loss, valid_accuracy=None if on_test else accuracy,
                test_accuracy=accuracy if on_test else None, misread=' '.join(misread) if on_test else '',
                version=mnist_foundations.__version__, threads=torch.get_num_threads(), seconds=round(seconds, 2))

def one_run(piles, purpose, change, lr, seed, epochs, checkpoint=None):
    "Train one net, and return its row and the probabilities on the second pile."
    pile, (x, y) = piles
    settings = RECIPE | CHANGES.get(change, dict(net=change))
    net, train_loss, seconds = trained(pile, settings, lr, seed, epochs, checkpoint)
    probabilities, numbers = predict(net, x), sum(p.numel() for p in net.parameters())
    return row_of(purpose, change, settings, lr, seed, epochs, len(pile[0]), probabilities, y,
                  train_loss, numbers, seconds), probabilities

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=['short', 'choices'], help='short: print these rows, and write nothing; '
                        'choices: leave the test images closed')
    only = parser.parse_args().only
    torch.set_num_threads(1)
    path = mnist_path('full')
    x, y = load_mnist(path, 'training')
    x_train, y_train, x_valid, y_valid = split_valid(x, y)
    split = (x_train, y_train), (x_valid, y_valid)
    short = [(change, .1, 0, 1) for change in ('the recipe', 'LeNet-5')]
    if only == 'short': return print(pd.DataFrame([one_run(split, 'short', *each)[0] for each in short]).to_string())
    kept = pd.read_csv(FILE).to_dict('records') if FILE.exists() else []

    def there(**wanted): return next((row for row in kept if all(row[k] == v for k, v in wanted.items())), None)

    def keep(row, order=None):
        if order:                                     # from places to the numbers of the original file
            pairs = [pair.split(':') for pair in row['misread'].split()]
            row['misread'] = ' '.join(f'{order[int(place)]}:{answer}' for place, answer in pairs)
        kept.append(row)
        print(*(value for name, value in row.items() if name != 'misread'), flush=True)
        write_whole(FILE, pd.DataFrame(kept).to_csv(index=False).encode())

    def run(purpose, change, lr, seed, epochs):
        "The validation accuracy of the run, whose row is written if it isn't there."
        wanted = dict(purpose=purpose, change=change, lr=lr, seed=seed, epochs=epochs)
        if not there(**wanted): keep(one_run(split, **wanted)[0])
        return there(**wanted)['valid_accuracy']

    def best_rate(purpose, change, seed, epochs):
        "The rate, of those that double in both directions, that is better than the next on each side."
        lr = .1
        def accuracy(rate): return run(purpose, change, rate, seed, epochs)
        while accuracy(lr) < max(accuracy(2*lr), accuracy(lr/2)): lr = max(2*lr, lr/2, key=accuracy)
        return lr

    for each in short: run('short', *each)
    rates = {change: best_rate('search', change, 3, 2) for change in CHANGES}
    for change, lr in rates.items():
        for seed in range(3): run('report', change, lr, seed, 5)
    best = best_rate('long', 'the recipe', 4, 20)
    if only == 'choices': return
    torch.set_num_threads(2)
    piles, order = ((x, y), load_mnist(path, 'testing')), image_numbers(path)
    NETS.mkdir(parents=True, exist_ok=True)

    def on_test(purpose, change, lr, seed, epochs, checkpoint=None):
        "The probabilities on the test images; the row is written if it isn't there."
        wanted = dict(purpose=purpose, change=change, lr=lr, seed=seed, epochs=epochs)
        if there(**wanted) and not checkpoint: return
        row, probabilities = one_run(piles, **wanted, checkpoint=checkpoint)      # at once where the net is finished
        if not there(**wanted): keep(row, order)
        return probabilities

    def voter(purpose, seed): return on_test(purpose, 'the recipe', best, seed, 20, NETS/f'{seed}.pt')

    votes = [voter('final', seed) for seed in range(3)]
    for seed in range(3): on_test('final', 'LeNet-5', rates['LeNet-5'], seed, 10)
    votes += [voter('vote', seed) for seed in (3, 4)]
    if not there(purpose='vote', change='five nets'):
        one = there(purpose='vote', change='the recipe', seed=4)
        shared = {name: one[name] for name in ('lr', 'seed', 'epochs', 'images')}
        keep(row_of('vote', 'five nets', RECIPE, **shared, probabilities=sum(votes), labels=piles[1][1],
                    train_loss=float('nan'), numbers=5*one['numbers'], seconds=0), order)
    on_test('wide', 'three times wider', best, 0, 10)

if __name__ == '__main__': main()
