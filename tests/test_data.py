"The data chapter on what would not teach a reader: damage, bad input, no network, several processes at once."
import os, shutil, subprocess, sys, tarfile, tempfile, threading, warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from fastai.data.external import URLs
from PIL import Image

from mnist_foundations import files
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, one_hot

SHARED = Path(__file__).resolve().parent.parent.parent/'shared'/'data'
COUNTS = {'training': [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
          'testing': [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]}


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
    for s, split in enumerate(COUNTS):
        for d in range(10):
            for i in (2, 10): draw(place/'mnist'/split/str(d)/f'{i}.png', seed=[s, d, i])
    return place/'mnist'


@pytest.fixture
def small(monkeypatch):
    "Let `full` be content with as many images as `mnist` has."
    monkeypatch.setattr(files, 'images_in_all', dict(training=20, testing=20))


def pack(mnist, *infos):
    "A .tgz of `mnist` and of members with no bytes; uncompressed, so that a test finds its way in it."
    file = mnist.parent/'mnist.tgz'
    with tarfile.open(file, 'w:gz', compresslevel=0, format=tarfile.GNU_FORMAT) as tar:
        tar.add(mnist, 'mnist_png')
        for info in infos: tar.addfile(info)
    return file


@pytest.fixture(scope='session')
def sample(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp('sample'))
        return files.sample()


@pytest.fixture
def sample_is_there(sample, monkeypatch): monkeypatch.setenv('XDG_CACHE_HOME', str(sample.parent.parent))


def need_shared():
    if not SHARED.exists(): pytest.skip('the MNIST archives of ../shared/data are not here')


@pytest.fixture(scope='session')
def full(tmp_path_factory):
    "All of MNIST, the way fastai fetches it."
    need_shared()
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp('full'))
        patch.setattr(URLs, 'MNIST', (SHARED/'mnist_png.tgz').as_uri())
        return mnist_path('full')


def same(a, b): return all(torch.equal(s, t) for s, t in zip(a, b, strict=True))


def plain(path, split='training', digits=range(10)):
    "What `load_mnist` should give, read one by one."
    found = [file for d in digits for file in sorted((path/split/str(d)).glob('*.png'))]
    x = torch.stack([torch.tensor(np.asarray(Image.open(file))).flatten() for file in found])
    return x.float()/255, torch.tensor([int(file.parent.name) for file in found])


def as_hex(path):
    "The bytes of the 3s, as a subprocess can print them."
    return (plain(path, digits=[3])[0]*255).round().byte().numpy().tobytes().hex()


def leftovers(place):
    "Folders in which something was being made."
    return [path.name for path in place.rglob('.*-*')]


def python(code, *args):
    "Start `code` in a Python of its own."
    return subprocess.Popen([sys.executable, '-c', dedent(code), *map(str, args)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def words(process):
    "The last line that `process` printed, in words; a progress bar ends in \\r."
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip().replace('\r', '\n').splitlines()[-1].split()


@contextmanager
def served(body, monkeypatch, length=None):
    "Have `body` under URLs.MNIST, with a server that promises `length` bytes."
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header('Content-Length', length or len(body))
            self.end_headers()
        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(body)
        def log_message(self, *args): pass
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(.05,)).start()
        monkeypatch.setattr(URLs, 'MNIST', f'http://127.0.0.1:{server.server_port}/mnist_png.tgz')
        try: yield
        finally: server.shutdown()


# mnist_path: all of MNIST, or the sample

def test_offline_the_default_is_the_sample_and_says_so(sample, sample_is_there, capsys):
    assert mnist_path() == sample
    out = capsys.readouterr().out
    assert '5,000 of the 70,000' in out and 'MNIST_FOUNDATIONS_DATA' in out
    assert out.count('\n') == 1 and '. ' not in out   # one line, one sentence


def test_offline_full_fails_and_leaves_nothing(place):
    with pytest.raises(ConnectionError, match='mnist_png.tgz could not be fetched'): mnist_path('full')
    assert os.listdir(place/'fastai') == ['.mnist_foundations.lock'] and not (place/'cache').exists()


def test_the_default_is_full_where_it_is(place, mnist, small, capsys):
    (place/'fastai').mkdir()
    mnist.rename(place/'fastai'/'mnist_png')
    assert mnist_path('full') == place/'fastai'/'mnist_png' and not capsys.readouterr().out
    assert mnist_path() == place/'fastai'/'mnist_png'
    assert capsys.readouterr().out.startswith('This is all of MNIST')


def test_incomplete_full_is_refused(place, mnist):
    (place/'fastai').mkdir()
    mnist.rename(place/'fastai'/'mnist_png')
    with pytest.raises(ValueError, match=r"mnist_png holds .*'training': 20.*60000.*delete the folder"):
        mnist_path()


def test_fetched_over_http(place, mnist, small, monkeypatch):
    with served(pack(mnist).read_bytes(), monkeypatch): path = mnist_path('full')
    assert same(load_mnist(path, 'testing'), plain(mnist, 'testing'))
    assert sorted(os.listdir(place/'fastai')) == ['.mnist_foundations.lock', 'mnist_png']
    assert mnist_path('full') == path   # the server is gone, and not missed


def test_fetched_from_a_file(mnist, small, monkeypatch):
    monkeypatch.setattr(URLs, 'MNIST', pack(mnist).as_uri())
    assert same(load_mnist(mnist_path('full'), 'training'), plain(mnist))


@pytest.mark.parametrize('error, body, length', [
    (ValueError, lambda whole: whole[:len(whole)//2], None),
    (ConnectionError, lambda whole: whole[:len(whole)//2], 10**6),   # the connection breaks
    ((ConnectionError, ValueError), lambda whole: b'<html>Log in here</html>', None)])
def test_failed_download_leaves_nothing(place, mnist, small, monkeypatch, error, body, length):
    with served(body(pack(mnist).read_bytes()), monkeypatch, length):
        with pytest.raises(error, match='mnist_png.tgz'): mnist_path('full')
    assert os.listdir(place/'fastai') == ['.mnist_foundations.lock']


def test_loading_all_of_mnist_needs_under_700_MB(full):   # the first to load it, so that it decodes
    # VmHWM and not getrusage, whose ru_maxrss starts from the peak of the process that forked
    if not Path('/proc/self/status').exists(): pytest.skip('the peak is read from /proc')
    process = python('''
        import sys
        from mnist_foundations.data import load_mnist
        x, y = load_mnist(sys.argv[1], 'training')
        print(len(x), *(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))
        ''', full)
    images, peak = map(int, words(process))
    assert images == 60_000 and peak < 700*1024


def test_all_of_mnist(full):
    for split, counts in COUNTS.items():
        x, y = load_mnist(full, split)
        assert y.bincount().tolist() == counts and x.shape == (sum(counts), 784)


def test_archive_of_threes_and_sevens(place):
    need_shared()
    with tarfile.open(SHARED/'mnist_sample.tgz') as tar: tar.extractall(place, filter='data')
    path = place/'mnist_sample'
    for split, full_split, n in ('train', 'training', 12_396), ('valid', 'testing', 2_038):
        assert [len(files.pngs(path/split/d)) for d in '37'] == [COUNTS[full_split][d] for d in (3, 7)]
        assert sum(len(files.pngs(path/split/d)) for d in '37') == n
    assert same(load_mnist(path, 'valid', [7, 3]), plain(path, 'valid', [7, 3]))
    with pytest.raises(FileNotFoundError, match='digit 0'): load_mnist(path, 'valid')


@pytest.mark.parametrize('split, n', [('training', 400), ('testing', 100)])
def test_the_sample_is_even(sample, split, n):
    x, y = load_mnist(sample, split)
    assert y.bincount().tolist() == [n]*10
    assert len(x.unique(dim=0)) == 10*n


def test_the_sample_is_training_images(sample, full):
    def images(path, split):
        return {row.tobytes() for pixels in files.kept_or_decoded(path, split, range(10)) for row in pixels}
    training, testing = images(full, 'training'), images(full, 'testing')
    for split in COUNTS: assert images(sample, split) <= training and not images(sample, split) & testing


# mnist_path: what the reader names

def test_the_argument_goes_before_the_variable(place, mnist, sample, sample_is_there, monkeypatch):
    for name, path in ('sample', sample), (str(mnist), mnist):
        monkeypatch.setenv('MNIST_FOUNDATIONS_DATA', name)
        assert mnist_path() == path
    assert mnist_path('sample') == sample
    monkeypatch.setenv('MNIST_FOUNDATIONS_DATA', str(place/'nowhere'))
    assert mnist_path(mnist) == mnist


def test_a_missing_folder_is_named(place, monkeypatch):
    with pytest.raises(FileNotFoundError, match='source is .*nowhere'): mnist_path(place/'nowhere')
    monkeypatch.setenv('MNIST_FOUNDATIONS_DATA', str(place/'nowhere'))
    with pytest.raises(FileNotFoundError, match='MNIST_FOUNDATIONS_DATA is .*nowhere'): mnist_path()


def test_a_folder_without_training_is_named(mnist):
    (mnist/'training').rename(mnist/'train')
    with pytest.raises(FileNotFoundError, match=r"mnist has no folder training, only \['testing', 'train'\]"):
        mnist_path(mnist)


def test_a_tgz_is_unpacked_once_and_again_when_changed(place, mnist):
    first = mnist_path(pack(mnist))
    assert same(load_mnist(first, 'training'), plain(mnist))
    (first/'unpacked once').touch()
    assert mnist_path(str(place/'mnist.tgz')) == first and (first/'unpacked once').exists()
    draw(mnist/'training'/'3'/'2.png', seed=99)
    assert same(load_mnist(mnist_path(pack(mnist)), 'training'), plain(mnist))
    assert not leftovers(place)


def test_a_tgz_without_an_outer_folder(place, mnist):
    with tarfile.open(place/'flat.tgz', 'w:gz') as tar: tar.add(mnist, '')
    assert same(load_mnist(mnist_path(place/'flat.tgz'), 'training'), plain(mnist))


def broken_header(whole):   # which tarfile takes for the end of the archive
    at = whole.index(b'mnist_png/training/5/10.png')
    return whole[:at] + b'?' + whole[at + 1:]


@pytest.mark.parametrize('damaged', [
    *(lambda whole, cut=cut: whole[:int(cut*len(whole))] for cut in (0, .0001, .1, .5, .8)),
    broken_header,
    lambda whole: b'This is no archive. '*100])
def test_a_damaged_tgz_is_refused(place, mnist, damaged):
    file = pack(mnist)
    whole = file.read_bytes()
    file.write_bytes(damaged(whole))
    with pytest.raises(ValueError, match='mnist.tgz could not be unpacked'): mnist_path(file)
    assert os.listdir(place/'cache'/'mnist_foundations') == ['.mnist_foundations.lock']
    file.write_bytes(whole)
    assert same(load_mnist(mnist_path(file), 'training'), plain(mnist))


def member(name, type=tarfile.REGTYPE, linkname=''):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, linkname
    return info


@pytest.mark.parametrize('info', [
    member('../../../../out.png'),
    member('mnist_png/training/0/../../../../../../../out.png'),
    member('mnist_png/training/0/out.png', tarfile.SYMTYPE, '/etc/hostname'),
    member('mnist_png/training/0/out.png', tarfile.SYMTYPE, '../../../../../mnist/training/0/2.png'),
    member('mnist_png/training/0/out.png', tarfile.LNKTYPE, '../../../../mnist/training/0/2.png'),
    member('mnist_png/training/0/out.png', tarfile.FIFOTYPE)])
def test_a_tgz_that_reaches_out_is_refused(place, mnist, info):
    file, before = pack(mnist, info), set(place.rglob('*'))
    with pytest.raises(ValueError, match='mnist.tgz is refused'): mnist_path(file)
    cache = place/'cache'/'mnist_foundations'
    assert set(place.rglob('*')) - before == {cache.parent, cache, cache/'.mnist_foundations.lock'}


def test_a_link_to_nothing_in_a_tgz_is_damage(mnist):
    file = pack(mnist, member('mnist_png/training/0/3.png', tarfile.LNKTYPE, 'mnist_png/nothing.png'))
    with pytest.raises(ValueError, match='mnist.tgz could not be unpacked'): mnist_path(file)


@pytest.mark.parametrize('names', [[], ['mnist_sample/train', 'mnist_sample/valid']])
def test_a_tgz_of_something_else_is_named(place, names):
    file = place/'other.tgz'
    with tarfile.open(file, 'w:gz') as tar:
        for name in names: tar.addfile(member(name, tarfile.DIRTYPE))
    with pytest.raises((FileNotFoundError, ValueError), match=str(file)): mnist_path(file)


# load_mnist

def test_load_is_a_plain_decode_in_order(mnist):
    x, y = load_mnist(str(mnist), 'training')
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((20, 784), torch.float32, (20,), torch.int64)
    assert x.min() == 0 and x.max() == 1
    assert same((x, y), plain(mnist)) and y.tolist() == [d for d in range(10) for _ in range(2)]
    assert same(load_mnist(mnist, 'testing', (7, 3)), plain(mnist, 'testing', (7, 3)))


def test_stray_files_are_skipped(mnist):
    before = load_mnist(mnist, 'training')
    for name in '.DS_Store', '._1.png', 'Thumbs.db': (mnist/'training'/'3'/name).write_bytes(b'stray')
    assert same(load_mnist(mnist, 'training'), before)


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


@pytest.mark.parametrize('change', [
    lambda file: draw(file, size=(28, 27)), lambda file: draw(file, size=(280, 280)),
    *(lambda file, mode=mode: draw(file, mode=mode) for mode in ('RGB', 'I;16', 'P', '1', 'LA')),
    *(lambda file, cut=cut: file.write_bytes(file.read_bytes()[:cut]) for cut in (0, 7, 20, 50, 400, 850)),
    lambda file: file.write_bytes(b'no PNG'),
    lambda file: Image.new('L', (28, 28)).save(file, 'BMP'),
    lambda file: (file.unlink(), file.mkdir())])
def test_a_bad_image_is_named(mnist, change):
    change(mnist/'training'/'3'/'10.png')
    with pytest.raises(ValueError, match='training/3/10.png is .*; expected a PNG of 28×28'):
        load_mnist(mnist, 'training')


# What load_mnist keeps

@pytest.fixture
def no_decoding(monkeypatch):
    "A function that makes decoding an error from then on."
    def decode(file): raise AssertionError(f'{file.path} is decoded again')
    return lambda: monkeypatch.setattr(files, '_decode', decode)


def test_the_second_load_is_quick_and_quiet(mnist, no_decoding, capsys):
    first = load_mnist(mnist, 'training')
    capsys.readouterr()
    no_decoding()
    with warnings.catch_warnings(action='error'):
        assert same(load_mnist(mnist, 'training'), first)
        assert same(load_mnist(mnist, 'training', [3]), plain(mnist, digits=[3]))
    assert not capsys.readouterr().out.strip('\r█ ')


def replace_unseen(file):
    "Put another image there, of the same size and time."
    stat = file.stat()
    draw(file, seed=99)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)


@pytest.mark.parametrize('change', [
    lambda file: draw(file.with_name('5.png'), seed=99), Path.unlink, lambda file: draw(file, seed=99),
    lambda file: file.rename(file.with_name('1.png')), replace_unseen])
def test_a_changed_folder_is_noticed(mnist, change, no_decoding):
    before = load_mnist(mnist, 'training')
    change(mnist/'training'/'3'/'2.png')
    after = load_mnist(mnist, 'training')
    assert same(after, plain(mnist)) and not torch.equal(after[0], before[0])
    assert len(list((mnist/'.decoded').iterdir())) == 10 + 1   # one a digit, and the lock
    no_decoding()
    assert same(load_mnist(mnist, 'training'), after)


@pytest.mark.parametrize('damaged', [
    lambda whole: b'', lambda whole: b'garbage',
    lambda whole: whole[:len(whole)//2], lambda whole: whole[:-1],
    lambda whole: whole.replace(whole[900:910], b'0123456789')])
def test_damaged_pixels_are_never_used(mnist, damaged, no_decoding):
    load_mnist(mnist, 'training')
    kept, = (mnist/'.decoded').glob('training-3-*.npz')
    kept.write_bytes(damaged(kept.read_bytes()))
    assert same(load_mnist(mnist, 'training'), plain(mnist))
    no_decoding()
    assert same(load_mnist(mnist, 'training'), plain(mnist))


@pytest.mark.parametrize('cache_mode', [0o777, 0o555])
def test_a_read_only_folder_is_kept_elsewhere_or_not_at_all(mnist, cache_mode):
    with tempfile.TemporaryDirectory() as folder:   # place is closed to other users
        os.chmod(folder, 0o755)
        path, cache = Path(folder)/'mnist', Path(folder)/'cache'
        shutil.copytree(mnist, path)
        cache.mkdir()
        for read_only, mode in (path, 0o555), (cache, cache_mode): read_only.chmod(mode)
        process = python('''
            import os, sys, warnings
            from pathlib import Path
            from mnist_foundations import files
            calls, decode = [], files._decode
            def counted(file): calls.append(file); return decode(file)
            files._decode = counted
            def twice(path):
                for _ in range(2): pixels, = files.kept_or_decoded(Path(path), 'training', [3])
                return pixels
            twice(sys.argv[1])   # imports what another user may have no right to read
            if os.getuid() == 0: os.setuid(65534)   # nothing is read-only to root
            os.environ['XDG_CACHE_HOME'] = sys.argv[3]
            calls.clear()
            with warnings.catch_warnings(record=True, action='always') as caught: pixels = twice(sys.argv[2])
            warned = sum('could not be kept' in str(w.message) for w in caught)
            print(len(calls), warned, pixels.tobytes().hex())''', mnist, path, cache)
        decoded, warned, pixels = words(process)
        assert (int(decoded), int(warned)) == ((2, 0) if cache_mode == 0o777 else (4, 2))
        assert pixels == as_hex(path)
        assert not (path/'.decoded').exists() and not leftovers(Path(folder))
        assert len(list(cache.rglob('*.npz'))) == (cache_mode == 0o777)


# Several processes, and killed ones

def test_two_at_once_make_it_once(place, mnist):
    code = '''
        import os, sys, time
        from pathlib import Path
        from mnist_foundations import files
        made, rename = [], os.rename
        def slow(old, new): made.append(new); time.sleep(.7); rename(old, new)   # so that the two meet
        os.rename = slow
        path = files.unpacked(Path(sys.argv[1]))
        unpacked = len(made)
        pixels, = files.kept_or_decoded(path, 'training', [3])
        print(unpacked, pixels.tobytes().hex())'''
    (n, pixels), (m, others) = [words(p) for p in [python(code, pack(mnist)) for _ in range(2)]]
    assert int(n) + int(m) == 1
    assert pixels == others == as_hex(mnist)
    assert not leftovers(place) and len(list(place.rglob('*.npz'))) == 1


@pytest.mark.parametrize('call', ["unpacked(place/'mnist.tgz')",
                                  "kept_or_decoded(place/'mnist', 'training', [3])"])
def test_killed_before_it_was_whole(place, mnist, call):
    pack(mnist)
    process = python(f'''
        import os, sys
        from pathlib import Path
        from mnist_foundations.files import kept_or_decoded, unpacked
        os.rename = lambda old, new: os.kill(os.getpid(), 9)
        place = Path(sys.argv[1])
        {call}''', place)
    process.communicate(timeout=60)
    assert process.returncode == -9 and leftovers(place)
    for path in mnist, mnist_path(place/'mnist.tgz'): assert same(load_mnist(path, 'training'), plain(mnist))
    assert not leftovers(place)


def test_killed_while_writing_the_sample(place):
    process = python('''
        import os
        from PIL import Image
        from mnist_foundations.files import sample
        save = Image.Image.save
        def some(image, file): save(image, file); file.name == '123.png' and os.kill(os.getpid(), 9)
        Image.Image.save = some
        sample()''')
    process.communicate(timeout=60)
    assert process.returncode == -9 and leftovers(place)
    assert [len(list(mnist_path('sample').glob(f'{split}/*/*.png'))) for split in COUNTS] == [4000, 1000]
    assert not leftovers(place)


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


# CUDA

@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no CUDA device')
def test_on_cuda(mnist):
    x, y = load_mnist(mnist, 'training', device='cuda')
    assert x.is_cuda and y.is_cuda and same((x.cpu(), y.cpu()), plain(mnist))
    dl = BatchLoader(x, one_hot(y), 6, shuffle=True)
    rows = torch.cat([xb for xb, yb in dl])
    assert rows.is_cuda and len(rows.unique(dim=0)) == 20 and all(yb.is_cuda for xb, yb in dl)
