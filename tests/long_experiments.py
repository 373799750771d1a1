"What the tests of the long experiments share: the scripts of benchmarks/, the rows they recorded, and all of MNIST."
import importlib.util, os, sys
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

import mnist_foundations
from mnist_foundations.data import load_mnist, mnist_path, split_valid

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent/'shared'/'data'/'mnist_png.tgz'
needs_all = pytest.mark.skipif(not SHARED.exists(), reason=f'needs all of MNIST, {SHARED.name} in ../shared/data')
takes_minutes = pytest.mark.skipif('RECIPE' not in os.environ, reason='takes minutes, and runs in CI: RECIPE=1')


@cache
def script(name):
    "benchmarks/NAME.py as a module, which may import the others."
    spec = importlib.util.spec_from_file_location(f'script_{name}', ROOT/'benchmarks'/f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT/'benchmarks'))
    try: spec.loader.exec_module(module)
    finally: sys.path.remove(str(ROOT/'benchmarks'))
    return module


def recorded_rows(name): return pd.read_csv(Path(mnist_foundations.__file__).parent/'results'/f'{name}.csv')


def piles():
    "The images to train with, and the validation images, each with their labels."
    x, y, x_valid, y_valid = split_valid(*load_mnist(mnist_path(SHARED), 'training'))
    return (x, y), (x_valid, y_valid)


def check_again(again, row):
    "Whether a run came out as it was recorded."
    assert again['images'] == row.images and again['valid_accuracy'] == pytest.approx(row.valid_accuracy, abs=.005)
    assert again['train_loss'] == pytest.approx(row.train_loss, rel=.05)
