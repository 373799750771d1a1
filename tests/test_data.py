"The data chapter on what would not teach a reader: exact orders, awkward sizes, other types, copies, bad input."
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_foundations.data import BatchLoader, load_mnist, one_hot, split_valid

wrong_answers = [   # one that a reader might give, for each checked exercise of the chapter in order
    'my_row = [0, 255, 51, 102, 0, 255]',
    'my_shape = (28, 28)',
    'my_ink = [x[y == digit].sum() for digit in range(10)]',
    '''
def my_batches(x, y, batch_size):
    order = torch.randperm(len(x))
    for start in range(0, len(x) - batch_size, batch_size):
        rows = order[start:start + batch_size]
        yield x[rows], y[rows]
''',
    'my_counts = split_valid(x, y)[1].bincount(minlength=10)']


# load_mnist

def draw(file, seed):
    "A PNG of noise."
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (28, 28), dtype=np.uint8)).save(file)


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    "A folder of two images a digit; '10.png' comes before '2.png'."
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    for s, split in enumerate(('training', 'testing')):
        for d in range(10):
            for i in (2, 10): draw(tmp_path/'mnist'/split/str(d)/f'{i}.png', seed=[s, d, i])
    return tmp_path/'mnist'


def plain(path, split='training', digits=range(10)):
    "What `load_mnist` should give, read one by one."
    found = [file for d in digits for file in sorted((path/split/str(d)).glob('*.png'))]
    x = torch.stack([torch.tensor(np.asarray(Image.open(file))).flatten() for file in found])
    return x.float()/255, torch.tensor([int(file.parent.name) for file in found])


def same(a, b): return all(torch.equal(s, t) for s, t in zip(a, b, strict=True))


@pytest.mark.parametrize('split', ['training', 'testing'])
@pytest.mark.parametrize('digits', [None, [3, 7], [7, 3], (5,), {4}, range(2)])
def test_load_is_a_plain_decode_in_order(mnist, split, digits):
    x, y = load_mnist(mnist, split, digits)
    assert same((x, y), plain(mnist, split, range(10) if digits is None else digits))
    assert x.dtype == torch.float32 and y.dtype == torch.int64 and x.shape == (len(y), 784)
    assert same(load_mnist(str(mnist), split, digits), (x, y))       # a path may be a string


@pytest.mark.parametrize('digits', [[], [10], [-1], [3, 3], ['3'], [3.5]])
def test_bad_digits_are_refused(mnist, digits):
    with pytest.raises(ValueError, match='expected some of 0 to 9, each once'): load_mnist(mnist, 'training', digits)


def test_an_unknown_split_is_named(mnist):
    with pytest.raises(FileNotFoundError, match="split is 'holiday', and .*mnist has no such folder"):
        load_mnist(mnist, 'holiday')


def test_a_digit_without_images_is_named(mnist):
    for file in (mnist/'training'/'4').iterdir(): file.unlink()
    with pytest.raises(FileNotFoundError, match='training.4 has no'): load_mnist(mnist, 'training')
    assert len(load_mnist(mnist, 'training', [3, 5])[0]) == 4        # the others are not asked for it


def test_white_paper_is_loaded_with_a_warning(mnist):
    for d in range(10):
        for file in (mnist/'training'/str(d)).iterdir(): Image.new('L', (28, 28), 200).save(file)
    with pytest.warns(UserWarning, match='the mean pixel is .* dark ink on white paper'):
        load_mnist(mnist, 'training')


# one_hot

@pytest.mark.parametrize('dtype', [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_one_hot_is_as_torch_has_it(dtype):
    y, hot = torch.arange(10).repeat(3), one_hot(torch.arange(10).repeat(3).to(dtype))
    assert hot.dtype == torch.float32 and torch.equal(hot, torch.nn.functional.one_hot(y, 10).float())
    assert one_hot(y[:0].to(dtype)).shape == (0, 10)


@pytest.mark.parametrize('y', [
    torch.tensor([2, 0]), [2, 0], (2, 0), np.array([2, 0]), np.array([2, 0], np.uint16), np.array([2, 0], np.int32)])
def test_one_hot_by_hand_of_tensors_arrays_and_lists(y):
    assert one_hot(y, 3).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_one_hot_of_true_and_false_is_that_of_1_and_0():
    for y in torch.tensor([True, False]), np.array([True, False]): assert one_hot(y, 2).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize('y, error, said', [
    (torch.tensor([3, 10]), ValueError, 'from 3 to 10; expected 0 to 9'),
    (torch.tensor([-1]), ValueError, 'from -1 to -1'),
    (torch.tensor([[1]]), ValueError, r'\(1, 1\); expected \(n,\)'),
    (torch.tensor(1), ValueError, r'\(\); expected'), (torch.tensor([1.]), TypeError, 'float32'),
    (['three'], TypeError, 'is a list; expected numbers'), ('3', TypeError, 'is a str; expected numbers')])
def test_one_hot_refuses(y, error, said):
    with pytest.raises(error, match=f'y .*{said}'): one_hot(y)


# split_valid: x is the row's own number, so that rows can be followed

def numbered(n): return torch.linspace(0, 1, n).view(n, 1), torch.arange(n)


@pytest.mark.parametrize('n, share, n_valid', [(60_000, 1/6, 10_000), (4000, 1/6, 667), (12, 1/6, 2), (10, .3, 3),
                                               (10, 0, 0), (1, 1/6, 0)])
def test_no_row_is_in_both_piles_and_none_is_lost(n, share, n_valid):
    x, y = numbered(n)
    x_train, y_train, x_valid, y_valid = split_valid(x, y, share)
    assert (len(x_train), len(x_valid)) == (len(y_train), len(y_valid)) == (n - n_valid, n_valid)
    assert torch.equal(torch.cat([y_train, y_valid]).sort().values, y)
    assert torch.equal(x_train, x[y_train]) and torch.equal(x_valid, x[y_valid])       # images keep their labels


def test_the_same_seed_gives_the_same_piles_on_every_machine():
    x, y = numbered(10)
    _, y_train, _, y_valid = split_valid(x, y, share=.3, seed=1)
    assert y_valid.tolist() == [5, 6, 1] and y_train.tolist() == [2, 0, 8, 9, 3, 7, 4]
    _, y_train, _, y_valid = split_valid(*numbered(60_000))
    assert y_valid[:6].tolist() == [36044, 10678, 57327, 55074, 21567, 15479]
    assert y_train[:6].tolist() == [19035, 13327, 47249, 44459, 16568, 7212]


def test_a_split_leaves_the_random_numbers_of_others_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    split_valid(*numbered(10))
    assert torch.equal(torch.rand(3), expected)


def test_the_piles_are_balanced_and_copies():
    x, y = torch.linspace(0, 1, 6000).view(-1, 1), torch.arange(10).repeat_interleave(600)   # in order, as load_mnist's
    before = x.clone()
    x_train, y_train, x_valid, y_valid = split_valid(x, y)
    counts = y_valid.bincount(minlength=10)              # 100 a digit are expected, give or take 9
    assert 70 <= counts.min() and counts.max() <= 130
    for pile in x_train, x_valid: pile.mul_(0)
    assert torch.equal(x, before)


def test_split_takes_arrays_and_any_shape():
    x, y = np.linspace(0, 1, 48, dtype=np.float32).reshape(12, 2, 2), one_hot(torch.arange(12), 12)
    x_train, y_train, x_valid, y_valid = split_valid(x, y)
    assert x_valid.shape == (2, 2, 2) and y_valid.argmax(1).tolist() == [8, 0]
    assert torch.equal(x_train, torch.tensor(x)[y_train.argmax(1)])


@pytest.mark.parametrize('args, said', [
    ((torch.rand(3, 1), torch.arange(4)), 'x has 3 rows and y has 4'),
    ((torch.rand(0, 1), torch.arange(0)), 'x has 0 rows'),
    *(((torch.rand(3, 1), torch.arange(3), share), 'share is .*; expected .*from 0 to below 1')
      for share in (1, 1.5, -.1, float('nan')))])
def test_split_refuses(args, said):
    with pytest.raises(ValueError, match=said): split_valid(*args)


# BatchLoader

x, y = numbered(10)


def passes(dl, n=3): return [torch.cat([yb for xb, yb in dl]).tolist() for _ in range(n)]


@pytest.mark.parametrize('args, error, said', [
    ((x, y[:9], 4), ValueError, 'x has 10 rows and y has 9'),
    ((x[:0], y[:0], 4), ValueError, 'x has 0 rows'),
    *(((x, y, size), ValueError, f'batch_size is {size}; expected') for size in (0, -1, 2.5, True)),
    *(((x.to(dtype), y, 4), TypeError, f'x is {dtype}; expected') for dtype in (torch.uint8, torch.int64)),
    ((x.numpy().astype(np.uint8), y, 4), TypeError, 'x is torch.uint8; expected'),
    ((x*255, y, 4), ValueError, 'x goes from 0 to 255; .* undivided'),
    ((x.where(x < 1, torch.nan), y, 4), ValueError, 'x goes from nan'),
    ((x, y.float(), 4), ValueError, 'y goes from 0 to 9'), ((x, y - 1, 4), ValueError, 'y goes from -1 to 8'),
    ((x, x*torch.nan, 4), ValueError, 'y goes from nan'), ((x, [*'abcdefghij'], 4), TypeError, 'y is a list')])
def test_loader_refuses(args, error, said):
    with pytest.raises(error, match=said): BatchLoader(*args)


@pytest.mark.parametrize('size, sizes', [(1, [1]*10), (3, [3, 3, 3, 1]), (4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (99, [10])])
@pytest.mark.parametrize('shuffle', [False, True])
@pytest.mark.parametrize('drop_last', [False, True])
def test_loader_gives_each_row_once_a_pass(size, sizes, shuffle, drop_last):
    dl = BatchLoader(x, y, size, shuffle, drop_last=drop_last)
    if drop_last: sizes = [n for n in sizes if n == size]
    for _ in range(2):
        batches = list(dl)
        assert [len(xb) for xb, yb in batches] == sizes and len(dl) == len(sizes)
        rows = torch.cat([yb for xb, yb in batches]) if batches else y[:0]
        assert all(torch.equal(xb, x[yb]) for xb, yb in batches)   # pairs stay together
        assert len(rows.unique()) == len(rows) == sum(sizes)
        if not shuffle: assert torch.equal(rows, y[:sum(sizes)])


def test_the_same_generator_gives_the_orders_of_version_0_1_0():
    dl = BatchLoader(x, y, 4, True, torch.Generator().manual_seed(5))
    assert passes(dl, 2) == [[1, 4, 9, 6, 3, 5, 0, 2, 8, 7], [4, 2, 8, 7, 6, 1, 0, 3, 5, 9]]
    dl = BatchLoader(*numbered(1000), 256, True, torch.Generator().manual_seed(0))
    assert passes(dl, 1)[0][:8] == [44, 37, 675, 775, 947, 209, 719, 500]


def test_loader_shuffles_anew_and_by_seed():
    def by_generator(): return passes(BatchLoader(x, y, 4, True, torch.Generator().manual_seed(5)))
    def by_seed():
        torch.manual_seed(5)
        return passes(BatchLoader(x, y, 4, shuffle=True))
    assert len({tuple(p) for p in by_seed()}) == 3
    assert by_seed() == by_seed() == by_generator()


@pytest.mark.parametrize('shuffle', [False, True])
@pytest.mark.parametrize('size', [4, 10, 99])
def test_what_is_done_to_a_batch_is_not_done_to_the_data(shuffle, size):
    images, targets = x.clone(), one_hot(y)
    for xb, yb in BatchLoader(images, targets, size, shuffle):
        xb.mul_(.5)
        yb.zero_()
    assert torch.equal(images, x) and torch.equal(targets, one_hot(y))


def test_normalised_images_are_welcome():
    normal = (x - x.mean())/x.std()
    assert normal.min() < 0
    xb, yb = next(iter(BatchLoader(normal, y, 10)))
    assert torch.equal(xb, normal)


def test_arrays_are_welcome():
    for xb, yb in BatchLoader(x.numpy(), y.numpy(), 5):
        assert torch.equal(xb, x[yb]) and yb.dtype == torch.int64
    images = x.numpy().copy()
    dl = BatchLoader(images, y.numpy(), 10)
    images[:] = 0                                            # of an array the loader keeps a copy
    assert torch.equal(next(iter(dl))[0], x)


@pytest.mark.parametrize('dtype', [torch.int32, torch.int64, torch.uint8, torch.bool, torch.float32])
def test_targets_keep_their_type(dtype):
    targets = (y > 4).to(dtype)
    batches = [yb for xb, yb in BatchLoader(x, targets, 4)]
    assert torch.equal(torch.cat(batches), targets) and batches[0].dtype == dtype


@pytest.mark.parametrize('images, warned', [(1 - x**4, True), (x**4, False), (1 - 2*x**4, False)])
def test_ink_on_white_paper_gets_one_warning(images, warned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        list(BatchLoader(images, y, 4))
    assert ['white paper' in str(w.message) for w in caught] == [True]*warned


@pytest.mark.parametrize('targets, size, shuffle, known', [
    (y, 4, False, True), (y.flip(0), 4, False, True), (one_hot(y), 4, False, True), ((y > 4).view(10, 1), 4, False, True),
    (y, 4, True, False), (y, 10, False, False), (torch.ones(10), 4, False, False), (y % 2, 4, False, False),
    (one_hot(y % 3), 4, False, False)])
def test_loader_knows_whether_labels_come_in_order(targets, size, shuffle, known):
    assert BatchLoader(x, targets, size, shuffle).in_order == known


# CUDA

@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no CUDA device')
def test_on_cuda(mnist):
    x, y = load_mnist(mnist, 'training', device='cuda')
    assert x.is_cuda and y.is_cuda and same((x.cpu(), y.cpu()), plain(mnist))
    dl = BatchLoader(x, one_hot(y), 6, shuffle=True)
    rows = torch.cat([xb for xb, yb in dl])
    assert rows.is_cuda and len(rows.unique(dim=0)) == 20 and all(yb.is_cuda for xb, yb in dl)
    piles = split_valid(x, y)
    assert all(pile.is_cuda for pile in piles) and same([p.cpu() for p in piles], split_valid(x.cpu(), y.cpu()))
