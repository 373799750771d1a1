"The data chapter on what would not teach a reader: bad input, awkward sizes."
import io

import numpy as np
import pytest
import torch
from fastai.data.external import URLs
from PIL import Image

from mnist_foundations.data import BatchLoader, load_mnist, one_hot
from mnist_foundations.show import Results, check_answer, show_bars, show_digits, show_pixels

SPLITS = 'training', 'testing'


# Places and data

def isolate(patch, place):
    "Keep out of the user's own caches, and off the network."
    patch.setenv('XDG_CACHE_HOME', str(place/'cache'))
    patch.setenv('no_proxy', '*')
    patch.delenv('MNIST_FOUNDATIONS_DATA', raising=False)
    patch.setattr('fastai.data.external.fastai_path', lambda _: place/'fastai')
    patch.setattr(URLs, 'MNIST', 'http://127.0.0.1:9/mnist_png.tgz')   # nothing listens there


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    return tmp_path


def draw(file, seed=0, mode='L', size=(28, 28)):
    "A PNG of noise; uncompressed, so that all of one size and mode take equally many bytes."
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(file, compress_level=0)


@pytest.fixture
def mnist(place):
    "A folder of two images a digit; '10.png' comes before '2.png'."
    for s, split in enumerate(SPLITS):
        for d in range(10):
            for i in (2, 10): draw(place/'mnist'/split/str(d)/f'{i}.png', seed=[s, d, i])
    return place/'mnist'


def same(a, b): return all(torch.equal(s, t) for s, t in zip(a, b, strict=True))


def plain(path, split='training', digits=range(10)):
    "What `load_mnist` should give, read one by one."
    found = [file for d in digits for file in sorted((path/split/str(d)).glob('*.png'))]
    x = torch.stack([torch.tensor(np.asarray(Image.open(file))).flatten() for file in found])
    return x.float()/255, torch.tensor([int(file.parent.name) for file in found])


# load_mnist

def test_load_is_a_plain_decode_in_order(mnist):
    x, y = load_mnist(str(mnist), 'training')
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((20, 784), torch.float32, (20,), torch.int64)
    assert x.min() == 0 and x.max() == 1
    assert same((x, y), plain(mnist)) and y.tolist() == [d for d in range(10) for _ in range(2)]
    assert same(load_mnist(mnist, 'testing', (7, 3)), plain(mnist, 'testing', (7, 3)))


@pytest.mark.parametrize('digits', [[], [10], [3, 3], [-1], [3, 1.5]])
def test_bad_digits_are_refused(mnist, digits):
    with pytest.raises(ValueError, match='digits is .*; expected some of 0 to 9, each once'):
        load_mnist(mnist, 'training', digits)


def test_an_unknown_split_is_named(mnist):
    with pytest.raises(FileNotFoundError, match="split is 'train', and .*mnist has no such folder"):
        load_mnist(mnist, 'train')


@pytest.mark.parametrize('folder_too', [False, True])
def test_a_digit_without_images_is_named(mnist, folder_too):
    for file in (mnist/'training'/'4').iterdir(): file.unlink()
    if folder_too: (mnist/'training'/'4').rmdir()
    with pytest.raises(FileNotFoundError, match='training/4 has no images'): load_mnist(mnist, 'training')
    assert len(load_mnist(mnist, 'training', [3])[0]) == 2


# one_hot and BatchLoader

@pytest.mark.parametrize('dtype', [torch.int64, torch.int32, torch.uint8])
def test_one_hot_is_as_torch_has_it(dtype):
    y, hot = torch.arange(10).repeat(3), one_hot(torch.arange(10).repeat(3).to(dtype))
    assert hot.dtype == torch.float32 and torch.equal(hot, torch.nn.functional.one_hot(y, 10).float())
    assert one_hot(y[:0].to(dtype)).shape == (0, 10)
    assert torch.equal(one_hot(torch.tensor([2, 0]), 3), torch.tensor([[0., 0, 1], [1, 0, 0]]))


@pytest.mark.parametrize('y, error, said', [
    (torch.tensor([3, 10]), ValueError, 'from 3 to 10; expected 0 to 9'),
    (torch.tensor([-1]), ValueError, 'from -1 to -1'),
    (torch.tensor([[1]]), ValueError, r'\(1, 1\); expected \(n,\)'),
    (torch.tensor(1), ValueError, r'\(\); expected'), (torch.tensor([1.]), TypeError, 'float32'),
    (torch.tensor([True]), TypeError, 'bool')])
def test_one_hot_refuses(y, error, said):
    with pytest.raises(error, match=f'y .*{said}'): one_hot(y)


x, y = torch.linspace(0, 1, 10).view(10, 1), torch.arange(10)


@pytest.mark.parametrize('args, error, said', [
    ((x, y[:9], 4), ValueError, 'x has 10 rows and y has 9'),
    *(((x, y, size), ValueError, f'batch_size is {size}; expected') for size in (0, -1, 2.5)),
    *(((x.to(dtype), y, 4), TypeError, f'x is {dtype}; expected') for dtype in (torch.uint8, torch.int64)),
    ((x*255, y, 4), ValueError, 'x goes from 0 to 255; .* undivided'),
    ((x - .1, y, 4), ValueError, 'x goes from -0.1'),
    ((x.where(x < 1, torch.nan), y, 4), ValueError, 'x goes from nan'),
    ((x[:0], y[:0], 4), ValueError, 'empty'),
    ((x, y.float(), 4), ValueError, 'y goes from 0 to 9'), ((x, y - 1, 4), ValueError, 'y goes from -1 to 8'),
    ((x, x*torch.nan, 4), ValueError, 'y goes from nan')])
def test_loader_refuses(args, error, said):
    with pytest.raises(error, match=said): BatchLoader(*args)


@pytest.mark.parametrize('size, sizes', [(1, [1]*10), (4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (99, [10])])
@pytest.mark.parametrize('shuffle', [False, True])
def test_loader_gives_each_row_once_a_pass(size, sizes, shuffle):
    dl, before = BatchLoader(x, y, size, shuffle), x.clone()
    for _ in range(2):
        batches = list(dl)
        assert [len(xb) for xb, yb in batches] == sizes and len(dl) == len(sizes)
        rows = torch.cat([yb for xb, yb in batches])
        assert torch.equal(torch.cat([xb for xb, yb in batches]), x[rows])   # pairs stay together
        assert torch.equal(rows.sort().values if shuffle else rows, y)
    assert torch.equal(x, before)


def test_loader_shuffles_anew_and_by_seed():
    def passes(dl): return [torch.cat([yb for xb, yb in dl]).tolist() for _ in range(3)]
    def by_generator(): return passes(BatchLoader(x, y, 4, True, torch.Generator().manual_seed(5)))
    def by_seed():
        torch.manual_seed(5)
        return passes(BatchLoader(x, y, 4, shuffle=True))
    assert len({tuple(p) for p in by_seed()}) == 3
    assert by_seed() == by_seed() == by_generator()


# What a notebook shows

@pytest.mark.parametrize('picture', [
    *(lambda alt, image=image: show_pixels(image, alt=alt) for image in (
        torch.rand(28, 28), torch.zeros(1, 1), torch.tensor([[0, 255]], dtype=torch.uint8), torch.randn(3, 4),
        torch.randn(3, 4, requires_grad=True))),
    *(lambda alt, images=images: show_digits(images, alt=alt) for images in (
        torch.rand(784), torch.zeros(1, 28, 28), torch.rand(11, 784), torch.randn(2, 784),
        torch.randn(2, 784, requires_grad=True), np.zeros((2, 28, 28), np.uint8))),
    lambda alt: show_digits(torch.rand(3, 784), titles=torch.tensor([3, 7, 3]), ncols=2, alt=alt),
    lambda alt: show_bars({0: 5, 'one': torch.tensor(2.5)}, 'digit', 'images', alt=alt),
    lambda alt: show_bars({0: 5}, 'digit', 'images', alt=alt)])
def test_pictures_are_png_with_alt_text(picture):
    for alt in None, 'Six crows.':
        shown, metadata = picture(alt)._repr_mimebundle_()
        assert Image.open(io.BytesIO(shown['image/png'])).format == 'PNG'
        assert metadata['image/png']['alt'] == (alt or shown['text/plain']) and len(shown['text/plain']) > 5


def test_signed_images_get_a_common_scale_around_zero():
    axes = show_digits(torch.stack([torch.full((784,), -3.), torch.ones(784)])).fig.axes
    assert [axes[i].images[0].get_clim() for i in (0, 1)] == [(-3, 3)]*2
    assert len(axes) == 3   # two images and the scale


@pytest.mark.parametrize('answer, said', [
    (..., 'Not yet: there is no answer'), (None, 'Not yet: there is no answer'),
    ('two', 'Not yet: the answer should be numbers'),
    ([1.], 'Not yet: the shape is (1,); (2,) was expected'),
    ([1, 4], 'Not yet: 1 of 2 values are off, by up to 2'), ([1, float('nan')], 'Not yet: 1 of 2'),
    ([1, 2 + 1e-4], 'Not yet: 1 of 2'), (np.array([1, 2 + 1e-6]), 'Right, to within 1e-06.'),
    ((1, 2), 'Right, exactly.'), (torch.tensor([1, 2.]), 'Right, exactly.')])
def test_check_answer(answer, said, capsys):
    check_answer(answer, [1, 2])
    assert capsys.readouterr().out.startswith(said)


def test_results_keep_their_rows_and_show_a_table():
    rows = [('net', 'testing images', .98765, None), ('none yet', 'loading', None, 1.26)]
    shown = Results('00 data', *rows)._repr_mimebundle_()
    kept = shown['application/vnd.mnist-foundations.results+json']
    names = 'chapter', 'model', 'measured', 'accuracy', 'seconds'
    assert kept == [dict(zip(names, ('00 data', *row), strict=True)) for row in rows]
    for text in shown['text/plain'], shown['text/html']:
        assert '0.9877' in text and '1.3' in text and 'None' not in text and 'nan' not in text.lower()


# CUDA

@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no CUDA device')
def test_on_cuda(mnist):
    x, y = load_mnist(mnist, 'training', device='cuda')
    assert x.is_cuda and y.is_cuda and same((x.cpu(), y.cpu()), plain(mnist))
    dl = BatchLoader(x, one_hot(y), 6, shuffle=True)
    rows = torch.cat([xb for xb, yb in dl])
    assert rows.is_cuda and len(rows.unique(dim=0)) == 20 and all(yb.is_cuda for xb, yb in dl)
