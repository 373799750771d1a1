"""Time single numbers that find their own gradients: our `Value`, micrograd's, and PyTorch's tensors of one number.

    python benchmarks/autograd.py

Each builds the same neuron, a sum of products through a ReLU, and goes back through it. They run in turn, once a round;
a first round warms up and is not counted. `ratio` is the median of each round's ratio to ours, `from` and `to` the
lowest and the highest. The last row is what PyTorch is made for: the whole neuron as one operation.
"""
import random, sys
from statistics import median

import micrograd.engine
import torch

from loading import heading, interleaved, row, seconds
from mnist_foundations.autograd import Value

def numbers(n):
    rng = random.Random(0)
    return [[rng.gauss(0, 1) for _ in range(n)] for _ in range(2)]

def one_by_one(make, n):
    "A function that builds a neuron of `n` inputs from `make`'s numbers, and goes back through it."
    def run():
        weights, inputs = [[make(v) for v in part] for part in numbers(n)]
        total = make(1.)
        for weight, v in zip(weights, inputs): total = total + weight*v
        total.relu().backward()
        return weights[0].grad
    return run

def at_once(n):
    def run():
        weights, inputs = [torch.tensor(part, dtype=torch.float64, requires_grad=True) for part in numbers(n)]
        (weights@inputs + 1).relu().backward()
        return weights.grad[0]
    return run

def scalar(v): return torch.tensor(v, dtype=torch.float64, requires_grad=True)

def main(n=300, rounds=15):                                    # micrograd's order is recursive: not much deeper
    torch.set_num_threads(1)
    runs = {'Value': one_by_one(Value, n), 'micrograd': one_by_one(micrograd.engine.Value, n),
            'PyTorch, one number a tensor': one_by_one(scalar, n), 'PyTorch, the neuron at once': at_once(n)}
    first, *others = [float(run()) for run in runs.values()]
    if any(abs(other - first) > 1e-12 for other in others): sys.exit('the gradients differ')
    times = interleaved([lambda run=run: seconds(run) for run in runs.values()], rounds, f'{n} inputs')
    heading(f'a neuron of {n} inputs, forward and back', 'ms', 'ratio', 'from', 'to')
    for name, took in zip(runs, times):
        ratios = [t/ours for t, ours in zip(took, times[0])]
        row(name, f'{1000*median(took):.2f}', *(f'{f(ratios):.2f}' for f in (median, min, max)))

if __name__ == '__main__': main()
