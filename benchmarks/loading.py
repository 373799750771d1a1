"""Time what comes before training: the first decode of the PNG files, later loads, their memory, the import.

    python benchmarks/loading.py

What is compared runs in turn, in one run. `seconds` is a median, `ratio` the median of each round's ratio,
`from` and `to` the lowest and the highest. The first decode is forced by looking past what an earlier one
kept, so nothing is deleted. Its peer, a plain loop over PIL, gets the list of the files for nothing; ours
also looks at the files' names, sizes and times. Memory and imports are measured in fresh processes.
MNIST_FOUNDATIONS_DATA chooses the images.
"""
import subprocess, sys
from contextlib import redirect_stdout
from statistics import median
from unittest.mock import patch

import numpy as np
from PIL import Image
from torch.utils.benchmark import timer

from mnist_foundations.data import load_mnist, mnist_path
from mnist_foundations.files import kept_or_decoded

def seconds(run):
    "How long `run` takes; what a GPU still has to do counts as well."
    start = timer()
    run()
    return timer() - start

def interleaved(runs, rounds, what):
    "Seconds of each of `runs` in each round, in turn, after a first round that warms up and is not counted."
    times = [[] for _ in runs]
    for r in range(rounds + 1):
        print(f'  {what}: round {r} of {rounds}' + ' (warms up)'*(r == 0), file=sys.stderr, flush=True)
        for i in range(len(runs)):
            j = (i + r) % len(runs)               # each round starts with another one
            with redirect_stdout(sys.stderr): times[j].append(runs[j]())   # bars: not into the tables
    return [took[1:] for took in times]

def heading(text, *columns): print(f'\n{text}\n{"":50}' + ''.join(f'{c:>9}' for c in columns))

def row(name, *values): print(f'{name:50}' + ''.join(f'{v:>9}' for v in values))

def target(text, met): print(f'target: {text}: {"met" if met else "MISSED"}', flush=True)

def in_fresh_process(code):
    "The numbers in the last line that `code` prints in a Python of its own."
    done = subprocess.run([sys.executable, '-c', code], check=True, stdout=subprocess.PIPE, text=True)
    return [float(n) for n in done.stdout.splitlines()[-1].split()]

def first_decode(path, rounds=5):
    files = [f for d in range(10) for f in sorted((path/'training'/str(d)).glob('*.png'))]
    def ours():
        with (patch('mnist_foundations.files._kept', lambda stores: None),
              patch('mnist_foundations.files._keep', lambda stores, pixels: None)):
            return np.concatenate(kept_or_decoded(path, 'training', range(10)))
    def plain(): return np.stack([np.asarray(Image.open(f)) for f in files])
    with redirect_stdout(sys.stderr): same = np.array_equal(ours(), plain().reshape(-1, 784))
    if not same: sys.exit('the two decode different pixels')
    a, b = interleaved([lambda: seconds(ours), lambda: seconds(plain)], rounds, 'first decode')
    ratios = [s/t for s, t in zip(a, b)]
    heading(f'The first decode of {len(files):,} PNG files; {rounds} rounds',
            'seconds', 'ratio', 'from', 'to')
    row('a plain loop over PIL', f'{median(b):.2f}', '1.00')
    row('ours: kept_or_decoded', *(f'{v:.2f}' for v in (median(a), median(ratios), min(ratios), max(ratios))))
    target('at most as long as the plain loop', median(ratios) <= 1)

def later_loads(path, rounds=7):
    def load(): return [load_mnist(path, split) for split in ('training', 'testing')]
    def scan():
        # what is kept is taken for empty, so all that is left is finding and naming it
        with patch('mnist_foundations.files._kept', lambda stores: np.empty((0, 784), np.uint8)):
            for split in ('training', 'testing'): kept_or_decoded(path, split, range(10))
    # the first call keeps them, if no one did so before
    with redirect_stdout(sys.stderr): n = sum(len(x) for x, y in load())
    a, b = interleaved([lambda: seconds(load), lambda: seconds(scan)], rounds, 'later loads')
    heading(f'Later loads of all {n:,} images; {rounds} rounds', 'seconds', 'from', 'to')
    row('load_mnist, both splits', *(f'{v:.3f}' for v in (median(a), min(a), max(a))))
    row("  of that, the files' names, sizes and times", *(f'{v:.3f}' for v in (median(b), min(b), max(b))))
    target('under 0.8 seconds', median(a) < .8)

# the highest resident memory so far, in MB; `resource` may give the parent's, so Linux's own file goes first
PEAK = '''
def peak():
    try: return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])*1024/1e6
    except OSError:
        import resource, sys
        unit = 1 if sys.platform == 'darwin' else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*unit/1e6
'''

def memory(path):
    load = 'kept = [load_mnist(%r, split) for split in ("training", "testing")]' % str(path)
    code = PEAK + 'from mnist_foundations.data import load_mnist\n%s\nprint(peak())'
    [before], [after] = in_fresh_process(code % ''), in_fresh_process(code % load)
    heading('Peak memory of a process that loads both splits and keeps them; 1 run', 'MB')
    row('in all', f'{after:.0f}')
    row('  of that, the imports, torch among them', f'{before:.0f}')
    target('under 700 MB', after < 700)

def imports(rounds=5):
    # one process for both: the difference of two would be less than what the import of torch varies by
    code = ('from time import perf_counter\nstart = perf_counter()\nimport torch\nmiddle = perf_counter()\n'
            'import mnist_foundations.net\nprint(middle - start, perf_counter() - middle)')
    times, = interleaved([lambda: in_fresh_process(code)], rounds, 'imports')
    first, then = zip(*times)
    heading(f'Imports, both in one fresh process a round; {rounds} rounds', 'seconds', 'from', 'to')
    row('import torch', *(f'{v:.3f}' for v in (median(first), min(first), max(first))))
    row('then import mnist_foundations.net', *(f'{v:.3f}' for v in (median(then), min(then), max(then))))
    target('at most 0.3 seconds above import torch', median(then) <= .3)

def main():
    path = mnist_path().resolve()                 # as load_mnist does: what is kept goes by the whole path
    print(f'The images of {path.name}')
    first_decode(path)
    later_loads(path)
    memory(path)
    imports()

if __name__ == '__main__': main()
