"The package as pip installs it: what is in the wheel, and that it asks for what it imports."
import ast, re, subprocess, sys, tarfile, zipfile
from configparser import ConfigParser

import pytest

import series

PACKAGE = series.ROOT/'mnist_foundations'
config = ConfigParser(delimiters=['='])
config.read(series.ROOT/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A folder with the sdist, and the wheel that is built from it."
    folder = tmp_path_factory.mktemp('built')
    source = folder/'source'
    source.mkdir()
    committed = subprocess.run(['git', 'ls-files', '-z'], cwd=series.ROOT, capture_output=True, text=True)
    if committed.returncode: pytest.skip('needs git, which says what belongs to the project')
    for name in filter(None, committed.stdout.split('\0')):
        if (series.ROOT/name).is_file():
            (source/name).parent.mkdir(parents=True, exist_ok=True)
            (source/name).write_bytes((series.ROOT/name).read_bytes())
    run = subprocess.run([sys.executable, '-m', 'build', '--no-isolation', '--outdir', folder, source],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return folder


def test_the_wheel_holds_modules_results_weights_and_licence(built):
    with zipfile.ZipFile(next(built.glob('*.whl'))) as wheel:
        names = set(wheel.namelist())
        expected = {f'mnist_foundations/{p.relative_to(PACKAGE).as_posix()}' for p in PACKAGE.rglob('*')
                    if p.is_file() and '__pycache__' not in p.parts}
        assert {n for n in names if n.startswith('mnist_foundations/')} == expected
        assert any(n.endswith('licenses/LICENSE') for n in names)
        metadata = wheel.read(f"mnist_foundations-{cfg['version']}.dist-info/METADATA").decode()
    assert f"Requires-Python: >={cfg['min_python']}" in metadata


def test_the_sdist_holds_what_its_setup_reads(built):
    with tarfile.open(next(built.glob('*.tar.gz'))) as sdist:
        names = {name.partition('/')[2] for name in sdist.getnames()}
    assert {'settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE'} <= names


@pytest.mark.parametrize('result', sorted((PACKAGE/'results').glob('*.csv')), ids=lambda p: p.stem)
def test_every_result_says_where_it_comes_from(result):
    columns = result.read_text(encoding='utf-8').splitlines()[0].split(',')
    assert {'seed', 'version', 'threads', 'seconds'} <= set(columns)
    assert (series.ROOT/'benchmarks'/f'{result.stem}.py').is_file()


def test_requirements_are_what_the_package_imports():
    imported = set()
    for path in PACKAGE.glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import): imported |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level: imported.add(node.module.split('.')[0])
    other = imported - set(sys.stdlib_module_names) - {'mnist_foundations', 'IPython'}   # a notebook brings IPython
    required = {re.match(r'[\w-]+', r)[0] for r in cfg['requirements'].split()}
    assert {{'PIL': 'pillow'}.get(name, name) for name in other} == required
