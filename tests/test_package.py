"The package as pip installs it: what is in the wheel, that it asks for what it imports, and what else speaks of it."
import ast, json, re, subprocess, sys, tarfile, zipfile

import pytest

import metadata
import series

PACKAGE = series.ROOT/'mnist_foundations'
cfg = metadata.settings()


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A folder with the sdist, and the wheel that is built from it."
    folder = tmp_path_factory.mktemp('built')
    source = folder/'source'
    source.mkdir()
    project = subprocess.run(['git', 'ls-files', '-z', '-co', '--exclude-standard'], cwd=series.ROOT, capture_output=True, text=True)
    if project.returncode: pytest.skip('needs git, which says what belongs to the project')
    for name in filter(None, project.stdout.split('\0')):
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
        assert 'mnist_foundations/py.typed' in names and any(n.endswith('licenses/LICENSE') for n in names)
        metadata = wheel.read(f"mnist_foundations-{cfg['version']}.dist-info/METADATA").decode()
    assert f"Requires-Python: >={cfg['min_python']}" in metadata


def test_the_sdist_is_the_whole_project(built):
    with tarfile.open(next(built.glob('*.tar.gz'))) as sdist:
        names = {name.partition('/')[2] for name in sdist.getnames()}
    source = built/'source'
    project = {p.relative_to(source).as_posix() for p in source.rglob('*') if p.is_file()}
    assert {name for name in project if not name.startswith(('.', 'build/', 'mnist_foundations.egg-info/'))} <= names
    assert 'settings.ini' in names


def run(module, *args):
    done = subprocess.run([sys.executable, '-m', module, *args], cwd=series.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_index_would_take_both(built):
    run('twine', 'check', '--strict', *map(str, built.glob('*.*')))
    run('check_wheel_contents', *map(str, built.glob('*.whl')))


def test_citation_and_changelog_are_of_this_version():
    lines = (series.ROOT/'CITATION.cff').read_text(encoding='utf-8').splitlines()
    assert cfg['license'] == 'apache2'
    assert {f"title: {cfg['title']}", f"version: {cfg['version']}", f"  - name: {cfg['author']}", 'license: Apache-2.0',
            f'abstract: "{cfg["description"]}"', f"repository-code: {cfg['git_url']}"} <= set(lines)
    assert f"## {cfg['version']}" in (series.ROOT/'CHANGELOG.md').read_text(encoding='utf-8').splitlines()


@pytest.mark.parametrize('schema, file', [
    ('citation-file-format', 'CITATION.cff'),
    ('github-workflows', '.github/workflows/test.yml'),
    ('github-issue-config', '.github/ISSUE_TEMPLATE/config.yml'),
    ('github-issue-forms', '.github/ISSUE_TEMPLATE/bug.yml'),
    ('github-issue-forms', '.github/ISSUE_TEMPLATE/chapter.yml')])
def test_what_other_programs_read_is_as_they_want_it(schema, file):
    run('check_jsonschema', '--builtin-schema', f'vendor.{schema}', file)


@pytest.mark.parametrize('result', sorted((PACKAGE/'results').glob('*.csv')), ids=lambda p: p.stem)
def test_every_result_says_where_it_comes_from(result):
    columns = result.read_text(encoding='utf-8').splitlines()[0].split(',')
    assert {'seed', 'version', 'threads', 'seconds'} <= set(columns)
    assert (series.ROOT/'benchmarks'/f'{result.stem}.py').is_file()


def imports(source):
    "The libraries that Python code imports, by the names that pip knows."
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): found |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level: found.add(node.module.split('.')[0])
    ours = {path.stem for folder in ('tests', 'tools', 'benchmarks') for path in (series.ROOT/folder).glob('*.py')}
    other = found - set(sys.stdlib_module_names) - ours - {'mnist_foundations', 'IPython'}   # a notebook brings IPython
    return {{'PIL': 'pillow', 'sklearn': 'scikit-learn', 'bs4': 'beautifulsoup4'}.get(name, name).replace('_', '-') for name in other}


def required(key): return {re.match(r'[\w-]+', r)[0].replace('_', '-') for r in cfg[key].split()}


def test_requirements_are_what_package_and_chapters_import():
    used = set().union(*(imports(path.read_text(encoding='utf-8')) for path in PACKAGE.glob('*.py')))
    for path in series.NBS.glob('*.ipynb'):
        for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
            if cell['cell_type'] == 'code': used |= imports(re.sub(r'(?m)^(\s*)[%!].*', r'\1pass', ''.join(cell['source'])))
    assert used - required('onnx_requirements') == required('requirements')


def test_extras_are_what_tests_tools_and_benchmarks_import():
    extras = set().union(*(required(key) for key in cfg if key.endswith('requirements')))
    for folder in ('tests', 'tools', 'benchmarks'):
        for path in (series.ROOT/folder).glob('*.py'):
            assert imports(path.read_text(encoding='utf-8')) <= extras, path.name


def test_every_module_is_there_without_what_only_notebooks_and_pictures_need():
    code = f"""
import importlib, sys
for name in ('IPython', 'matplotlib', 'fastai', 'pandas', 'sklearn', 'anywidget'): sys.modules[name] = None
for name in {sorted(path.stem for path in PACKAGE.glob('[!_]*.py'))}: importlib.import_module('mnist_foundations.' + name)
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=series.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
