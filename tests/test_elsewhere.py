"On other machines: a day with the package where encodings, paths, homes, networks or flags are others than here."
import ast, os, re, shutil, subprocess, sys
from pathlib import Path

import pytest
from PIL import Image

from mnist_foundations import files
from mnist_foundations.drawing import draw_strokes, examples

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(files.__file__).parent
SOURCES = sorted(PACKAGE.glob('*.py'))
NOT_ON_WINDOWS = {   # names in Python's modules, and whole modules
    'os': set('chown fchown fork forkpty getegid geteuid getgid getgroups getloadavg getpgid getpgrp getpriority getsid getuid '
              'killpg lchown mkfifo nice openpty posix_fallocate pread pwrite sched_getaffinity setgid setpgid setpriority setsid '
              'setuid statvfs sync sysconf uname wait wait3 wait4 waitid'.split()),
    'signal': set('SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 alarm pause pthread_kill setitimer'.split()),
    '': {'fcntl', 'grp', 'posix', 'pty', 'pwd', 'resource', 'syslog', 'termios', 'tty'}}

# What somebody does in a day, and what it prints where all is well.
A_DAY = '''
import runpy, sys
sys.argv = ['reading', *sys.argv[1:]]
try: runpy.run_module('mnist_foundations.reading', run_name='__main__', alter_sys=True)     # python -m
except SystemExit as e: print('exit', e.code)

import torch
from pathlib import Path
from mnist_foundations import drawing, keeping, show
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, one_hot
from mnist_foundations.linear import init_params, mnist_loss, train_epoch
from mnist_foundations.net import simple_net, validate_epoch
from mnist_foundations.training import TwoLayerNet

x, y = load_mnist(mnist_path(), 'testing', [3, 7])
try: BatchLoader(x, y, 0)
except ValueError as e: print(e)

torch.manual_seed(0)
dl = BatchLoader(x, one_hot(y), 20, shuffle=True)
params = [init_params(size, .05) for size in ((784, 20), 20, (20, 10), 10)]
def net(xb): return simple_net(xb, *params)
losses = [train_epoch(net, 5., params, dl, mnist_loss) for epoch in range(5)]
print(len(x), 'images: learns', losses[-1] < losses[0], validate_epoch(net, dl) > .7)

net = TwoLayerNet(5).eval()
keeping.save_model(net, 'net')
print('keeps', torch.equal(keeping.load_model('net')(x), net(x)))
drawing.write_page('page.html')
print('writes', '</html>' in Path('page.html').read_text(encoding='utf-8'))
print('draws', show.show_digits(x[:3], ['é', '−1', '√'])._repr_mimebundle_()[0]['image/png'][1:4])
'''
ALL_WELL = '''字 3.png: 3, 100.0%
exit 0
batch_size is 0; expected a whole number, at least 1
200 images: learns True True
keeps True
writes True
draws b'PNG'
'''.splitlines()
NAME, REST = ALL_WELL[0], ALL_WELL[1:]


@pytest.fixture(scope='session')
def cached(tmp_path_factory):
    "A cache that holds the sample."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        return files.sample().parent.parent


def day(folder, cache, *flags, code=A_DAY, **env):
    "The lines that a day in `folder` prints; a variable of the environment that is None is unset."
    folder.mkdir(exist_ok=True)
    Image.fromarray((draw_strokes(examples[3])*255).byte().numpy()).save(folder/'字 3.png')
    (folder/'day.py').write_text(code, encoding='utf-8')
    env = os.environ | dict(HOME=folder/'home', XDG_CACHE_HOME=cache, MNIST_FOUNDATIONS_DATA='sample', OMP_NUM_THREADS='1') | env
    ended = subprocess.run([sys.executable, *flags, 'day.py', '字 3.png'], cwd=folder, capture_output=True, timeout=300,
                           env={name: str(value) for name, value in env.items() if value is not None})
    assert not ended.returncode, ended.stderr.decode(errors='replace')
    return ended.stdout.decode(env.get('PYTHONIOENCODING', 'utf-8')).splitlines()


# Text

def test_an_output_of_cp1252_where_utf_8_is_off(tmp_path, cached):
    copy = shutil.make_archive(tmp_path/'Übung 字', 'zip', cached/'mnist_foundations'/'sample')
    name, *rest = day(tmp_path, tmp_path/'字', MNIST_FOUNDATIONS_DATA=copy, PYTHONIOENCODING='cp1252', PYTHONUTF8='0',
                      PYTHONCOERCECLOCALE='0', LC_ALL='C')
    assert name.isascii() and name.endswith(' 3.png: 3, 100.0%') and rest == REST     # what it can't spell it writes with \


@pytest.mark.parametrize('source', [*SOURCES, *sorted((ROOT/'tools').glob('*.py'))], ids=lambda path: path.name)
def test_text_has_a_named_encoding(source):
    calls = [node for node in ast.walk(ast.parse(source.read_text(encoding='utf-8'))) if isinstance(node, ast.Call)
             and getattr(node.func, 'attr', getattr(node.func, 'id', '')) in ('open', 'fdopen', 'read_text', 'write_text')]
    for call in map(ast.unparse, calls):
        assert 'encoding=' in call or re.search(r"'[rwa]b'", call) or re.match(r'(Image|tarfile|webbrowser)\.', call), call


# Places

def test_a_checkout_a_cache_and_data_with_spaces_and_umlauts(tmp_path, cached):
    here = tmp_path/'Übungen für später'
    shutil.copytree(PACKAGE, here/'mnist_foundations', ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copytree(cached/'mnist_foundations'/'sample'/'testing', here/'meine Zahlen'/'test')
    (here/'meine Zahlen'/'train').mkdir()          # of other names than usual, so that the cache gets links to them
    *lines, file = day(here, here/'ein Zwischenspeicher', MNIST_FOUNDATIONS_DATA='meine Zahlen', PYTHONPATH=here,
                       code=A_DAY + 'print(drawing.__file__)')
    assert lines == ALL_WELL and here in Path(file).parents


OFFLINE = dict(MNIST_FOUNDATIONS_DATA=None, FASTAI_HOME=None, http_proxy='http://127.0.0.1:9', https_proxy='http://127.0.0.1:9',
               no_proxy=None, NO_PROXY=None)
NOBODY = '''
import pwd
def unknown(user): raise KeyError(user)
pwd.getpwuid = unknown
'''

@pytest.mark.parametrize('home, before, why', [
    ({}, '', 'could not be fetched'),
    (dict(HOME='/sys/home'), '', '~/.fastai cannot be written to'),
    (dict(HOME=None, XDG_CACHE_HOME=None), NOBODY, '~/.fastai cannot be written to (Could not determine home')],
    ids=['the proxy leads nowhere', 'home is closed', 'there is no home'])
def test_without_a_network_or_a_home_there_is_the_sample(tmp_path, cached, home, before, why):
    (tmp_path/'temporary').symlink_to(cached)              # the cache of who has no home is there
    name, code, why_here, *rest = day(tmp_path, cached, code=before + A_DAY, TMPDIR=tmp_path/'temporary', **OFFLINE | home)
    assert why in why_here and 'these are 5,000 of the 70,000' in why_here and [name, code, *rest] == ALL_WELL


def test_no_variable_says_where_home_is(tmp_path, cached):
    assert day(tmp_path, None, HOME=None, MPLCONFIGDIR=tmp_path, MNIST_FOUNDATIONS_DATA=cached/'mnist_foundations'/'sample') == ALL_WELL


# Flags

def test_asserts_are_off_and_warnings_are_errors(tmp_path, cached):
    assert day(tmp_path, cached, '-O', '-W', 'error') == ALL_WELL


# What Windows hasn't got

FORGOTTEN = f'''
import importlib, os, pkgutil, signal
import mnist_foundations
modules = [module.name for module in pkgutil.iter_modules(mnist_foundations.__path__, 'mnist_foundations.')]
for name in [*sys.modules]:                        # those of others stay: they know that this isn't Windows
    if name.startswith('mnist_foundations'): del sys.modules[name]
for module, names in {NOT_ON_WINDOWS}.items():
    for name in names:
        if not module: sys.modules[name] = None
        elif hasattr(sys.modules[module], name): delattr(sys.modules[module], name)
for name in modules: importlib.import_module(name)
'''

def test_a_day_without_what_only_posix_has(tmp_path, cached):
    assert day(tmp_path, cached, code=A_DAY + FORGOTTEN + A_DAY) == ALL_WELL*2


@pytest.mark.parametrize('source', SOURCES, ids=lambda path: path.name)
def test_nothing_is_called_that_windows_has_not_got(source):
    for node in ast.walk(ast.parse(source.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.attr not in NOT_ON_WINDOWS.get(node.value.id, ()), node.lineno
        if isinstance(node, ast.Import): assert not NOT_ON_WINDOWS[''] & {alias.name for alias in node.names}, node.lineno
        if isinstance(node, ast.ImportFrom): assert not NOT_ON_WINDOWS.get(node.module, NOT_ON_WINDOWS['']) & {
            node.module, *(alias.name for alias in node.names)}, node.lineno


def test_a_link_that_windows_refuses_is_not_needed(tmp_path, monkeypatch):
    for half in 'train', 'test': (tmp_path/'own'/half).mkdir(parents=True)
    def refuse(*args, **kwargs): raise OSError(22, 'A required privilege is not held by the client')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setattr(Path, 'symlink_to', refuse)
    with pytest.raises(OSError, match='own/train could not be linked to .A required privilege.*; rename it to training'):
        files.own_copy(tmp_path/'own')
    for half, usual in ('train', 'training'), ('test', 'testing'): (tmp_path/'own'/half).rename(tmp_path/'own'/usual)
    assert files.own_copy(tmp_path/'own') == tmp_path/'own'


SPAWNED = '''
import multiprocessing
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, one_hot
from mnist_foundations.linear import init_params, linear1, train_epoch
from mnist_foundations.reading import read_digit

def learn(dl, seed):
    params = [init_params((784, 10), .01), init_params(10, .01)]
    return train_epoch(lambda xb: linear1(xb, *params), .1, params, dl)

if __name__ == '__main__':
    x, y = load_mnist(mnist_path(), 'testing')
    with multiprocessing.get_context('spawn').Pool(2) as pool:
        print(pool.apply(read_digit, ['字 3.png']))
        print(all(0 < loss < 1 for loss in pool.starmap(learn, [(BatchLoader(x, one_hot(y), 100, True), seed) for seed in range(2)])))
'''

def test_workers_that_are_spawned(tmp_path, cached):
    assert day(tmp_path, cached, code=SPAWNED) == ['3, 100.0%', 'True']
