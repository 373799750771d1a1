"""Time gradients: by hand, by autograd and number by number, beside the multiplies that they can't do without.

    python benchmarks/backprop.py

The tables are made as in epoch.py, rows in turn. Memory is that of fresh processes, each of which does one step
with all images in one batch, so that what is kept between forward and backward counts. MNIST_FOUNDATIONS_DATA
chooses the images, and whole layers run on the GPU if there is one.
"""
import gc, os, random, sys
from functools import partial
from operator import mul
from statistics import median
from time import perf_counter
from unittest.mock import patch

import micrograd.engine
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from epoch import LR, begin, fresh_params, table, torch_loop
from loading import PEAK, heading, in_fresh_process, interleaved, row, target
from mnist_foundations.backprop import Layer, Net, Value, backprop_epoch
from mnist_foundations.data import BatchLoader, one_hot
from mnist_foundations.linear import train_epoch

def multiplies(dl, hidden, device):
    "A function that does an epoch's multiplies in the order that is fastest for few hidden units."
    w1, w2 = torch.randn(hidden, 784, device=device), torch.randn(10, hidden, device=device)
    g, h, gh = (torch.randn(min(dl.batch_size, len(dl.x)), n, device=device) for n in (10, hidden, hidden))
    out, gw1, gw2 = torch.empty_like(g), torch.empty_like(w1), torch.empty_like(w2)
    def run():
        for xb in dl.x.split(dl.batch_size):
            n = len(xb)
            torch.mm(xb, w1.T, out=h[:n])        # forward
            torch.mm(h[:n], w2.T, out=out[:n])
            torch.mm(g[:n].T, h[:n], out=gw2)    # backward
            torch.mm(g[:n], w2, out=gh[:n])
            torch.mm(gh[:n].T, xb, out=gw1)
    return run

def by_hand(dl, hidden, device):
    return partial(backprop_epoch, LR, [p.detach() for p in fresh_params(device, hidden)], dl)

def by_autograd(dl, hidden, device):
    w1, b1, w2, b2 = params = fresh_params(device, hidden)
    def model(xb): return torch.addmm(b2, torch.addmm(b1, xb, w1).sigmoid(), w2)
    return partial(train_epoch, model, LR, params, dl, cross_entropy)

def by_torch(dl, hidden, device):
    return torch_loop(dl, nn.Sequential(nn.Linear(784, hidden), nn.Sigmoid(), nn.Linear(hidden, 10)).to(device))

ways = {'the bare matrix multiplies': multiplies, 'gradients by hand: backprop_epoch': by_hand,
        'autograd: train_epoch': by_autograd, 'torch: nn.Sequential, optim.SGD': by_torch}

def step_memory(way):
    "Peak memory in MB, above that of the images, of one step of 784-500-10 with all images in one batch."
    here = os.path.dirname(os.path.abspath(__file__))
    return in_fresh_process(PEAK + f'''
import sys
sys.path.insert(0, {here!r})
from backprop import *
from mnist_foundations.data import load_mnist, mnist_path
device = 'cuda' if torch.cuda.is_available() else 'cpu'
x, y = load_mnist(mnist_path(), 'training', device=device)
dl, small = BatchLoader(x, one_hot(y), len(x)), BatchLoader(x[:1000], one_hot(y[:1000]), 1000)
ways[{way!r}](small, 500, device)()                   # what the first step loads
if device == 'cuda':
    torch.cuda.reset_peak_memory_stats()
    before, peak = torch.cuda.memory_allocated()/1e6, lambda: torch.cuda.max_memory_allocated()/1e6
else:
    open('/proc/self/clear_refs', 'w').write('5')     # Linux: the peak so far is forgotten
    before = peak()
ways[{way!r}](dl, 500, device)()
print(peak() - before)
''')[0]

def scalar_step(make, inputs):
    """A function that does a step of 784-10-10 on one image, a list of (place, pixel), with `make` as the scalar.

    No biases, and squares for the loss, since micrograd has no exp."""
    rng = random.Random(0)
    def weights(n): return [[make(rng.gauss(0, n**-.5)) for _ in range(n)] for _ in range(10)]
    w1, w2 = weights(784), weights(10)
    def run():
        gc.collect()                             # what the row before left
        start = perf_counter()
        hidden = [sum(w[i]*v for i, v in inputs).relu() for w in w1]
        outs = [sum(w*h for w, h in zip(ws, hidden)) for ws in w2]
        sum((o - float(k == 3))**2 for k, o in enumerate(outs)).backward()
        for w in (w for ws in (*w1, *w2) for w in ws):
            if w.grad: w.data, w.grad = w.data - .001*w.grad, 0.
        return perf_counter() - start
    return run

def learn_step(image):
    net = Net(Layer(784, 10), Layer(10, 10, 'none'))
    def run():
        gc.collect()
        start = perf_counter()
        net.learn(image, 3, .01)
        return perf_counter() - start
    return run

def bare_python(inputs):
    "A function that does the multiplies of that step in Python, with nothing remembered."
    rng, lit = random.Random(0), [v for _, v in inputs]
    w1, w2 = ([[rng.gauss(0, .1) for _ in range(n)] for _ in range(10)] for n in (len(lit), 10))
    def run():
        start = perf_counter()
        hidden = [max(sum(map(mul, w, lit)), 0.) for w in w1]
        outs = [sum(map(mul, w, hidden)) for w in w2]
        back = [sum(map(mul, column, outs)) for column in zip(*w2)]
        for ws, grads, ins in ((w2, outs, hidden), (w1, back, lit)):
            for w, g in zip(ws, grads): w[:] = [a - 1e-9*g*v for a, v in zip(w, ins)]
        return perf_counter() - start
    return run

def one_image(image, said):
    "The table of one image in plain Python; `image` is a list of 784 pixels."
    inputs = [(i, v) for i, v in enumerate(image) if v]
    rows = {'the multiplies in bare Python': bare_python(inputs), 'ours: Value': scalar_step(Value, inputs),
            'micrograd 0.1.0': scalar_step(micrograd.engine.Value, inputs),
            'ours: Net.learn, with biases and cross-entropy': learn_step(image)}
    times = interleaved(list(rows.values()), 9, said)
    heading(f'One image, {said}, 784-10-10 in plain Python: forward, backward, update; 9 rounds',
            'seconds', 'ratio', 'from', 'to')
    for name, took in zip(rows, times):
        ratios = [t/base for t, base in zip(took, times[0])]
        row(name, f'{median(took):.4f}', *(f'{f(ratios):.1f}' for f in (median, min, max)))
    target('ours at most 0.1 seconds an image', max(median(times[1]), median(times[3])) <= .1)

def unchecked(run):
    "`run`, with what it asks of each batch's shapes and targets left out."
    nothing = lambda *args: None
    def without():
        with (patch('mnist_foundations.backprop._check_answers', nothing),
              patch('mnist_foundations.backprop.check_layer', nothing)): run()
    return without

def main():
    _, device, x, y = begin()
    sys.setrecursionlimit(10_000)                # micrograd goes back by recursion

    image = x[0].tolist()
    one_image(image, 'blank pixels left out')
    one_image([max(v, 1/255) for v in image], 'no pixel blank')

    for batch_size, rounds in ((64, 7), (1000, 11)):
        dl = BatchLoader(x, one_hot(y), batch_size, shuffle=True)
        rows = {name: way(dl, 10, device) for name, way in ways.items()}
        rows['gradients by hand, without the checks'] = unchecked(by_hand(dl, 10, device))
        table(f'An epoch of 784-10-10, batches of {batch_size:,}, {len(x):,} images, shuffled but in the first row',
              rows, rounds)

    for hidden in (10, 500):
        xb, d_a = x[:64].contiguous(), torch.randn(64, hidden, device=device)
        table(f'The gradient of w1, 784 by {hidden}, for a batch of 64, a thousand times',
              {'xb.T@d_a': lambda: [xb.T@d_a for _ in range(1000)],
               '(d_a.T@xb).T': lambda: [(d_a.T@xb).T for _ in range(1000)]}, 5)

    used = {name: step_memory(name) for name in ways}
    heading('Peak memory of one step of 784-500-10, all images in one batch, above the images', 'MB', 'ratio')
    for name, mb in used.items(): row(name, f'{mb:.0f}', f'{mb/used["the bare matrix multiplies"]:.2f}')

if __name__ == '__main__': main()
