"The notebooks: as committed, and executed on the data that MNIST_FOUNDATIONS_DATA names (the sample, by default)."
import ast, re, subprocess, sys
from functools import cache
from importlib import import_module
from pathlib import Path

import nbformat
import pytest

import series

notebooks = sorted(series.NBS.glob('*.ipynb'))
each_notebook = pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
each_chapter = pytest.mark.parametrize('path', series.chapters, ids=lambda p: p.stem)


def read(path): return nbformat.read(path, as_version=4)

def code_of(nb): return [c for c in nb.cells if c.cell_type == 'code' and c.source.strip()]

def printed(cell): return ''.join(out.get('text', '') for out in cell.outputs)


# As committed.

@each_notebook
def test_committed_executed_clean_and_described(path):
    nb = read(path)
    assert nb.metadata.kernelspec.name == 'python3'        # without it JupyterLab opens a dialog
    assert any(cell.outputs for cell in code_of(nb))
    for cell in code_of(nb):
        assert len(cell.source.splitlines()) <= 25, cell.source
        for out in cell.outputs:
            assert out.output_type != 'error' and out.get('name') != 'stderr', cell.source
            if 'image/png' in out.get('data', {}):
                assert out.metadata.get('image/png', {}).get('alt') or cell.metadata.get('alt'), cell.source
            assert not re.search(r'/(?:home|root|tmp)/', str(out.get('text', '')) + out.get('data', {}).get('text/plain', ''))


@each_notebook
def test_most_code_follows_prose_and_cells_are_short(path):
    nb = read(path)
    if path.stem == 'index': pytest.skip('a README, not a chapter')
    cells = [c for c in nb.cells if c.source.strip() and '#| default_exp' not in c.source]
    after_prose = [before.cell_type == 'markdown' for before, c in zip(cells, cells[1:]) if c.cell_type == 'code']
    assert sum(after_prose)/len(after_prose) > .5
    lines = sorted(len(c.source.splitlines()) for c in code_of(nb) if '#| export' not in c.source)
    assert lines[len(lines)//2] <= 5 and lines[int(.9*len(lines))] <= 12


@each_notebook
def test_every_exported_name_is_used_in_a_later_cell(path):
    cells = code_of(read(path))
    for i, cell in enumerate(cells):
        if not cell.source.startswith('#| export'): continue
        for node in ast.parse(cell.source).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_'):
                uses = [c.source for c in cells[i + 1:] if '#| export' not in c.source and re.search(rf'\b{node.name}\b', c.source)]
                assert uses, f'{node.name} is exported and never tried'
                drawing = node.name.startswith('show_') or node.name in ('Picture', 'Results', 'blank_figure')
                later = drawing or any(re.search(r'\btest_|\bassert\b', u) for u in uses) or node.name.startswith('check')
                assert later, f'{node.name} has no check'


@pytest.mark.parametrize('module', ['files', 'checks', 'show', 'data', 'similarity', 'linear', 'net', 'backprop', 'training'])
def test_public_functions_say_what_they_take_and_return(module):
    m = import_module(f'mnist_foundations.{module}')
    source = Path(m.__file__).read_text(encoding='utf-8')
    for name in m.__all__:
        public = getattr(m, name)
        if callable(public): assert public.__doc__, f'{name} has no docstring'
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name in m.__all__:
            lines = source.splitlines()
            for arg in node.args.args: assert '#' in lines[arg.lineno - 1], f'{node.name}: {arg.arg} has no comment'


cited = {34.81, 74.87, 69.28, 92.3, 98.4, 99.3, 3.11}   # published by others, with the source named beside it; Python's version

def figures(text):
    "Decimal numbers and percentages of `text`, with how many decimals each has."
    for number, decimals, percent in re.findall(r'(?<![\w.,])(\d+(?:\.(\d+))?)(%?)(?![\w%]|\.\d)', text):
        if decimals or percent: yield float(number), len(decimals)

def test_every_figure_in_prose_is_in_an_output_or_in_code():
    pool, prose = set(), []
    for path in notebooks:
        for cell in read(path).cells:
            if cell.cell_type == 'markdown':
                text = re.sub(r'```.*?```|`[^`]*`|\$[^$]*\$|\*\*Sources\.\*\*.*|\([^)]*\b(?:19|20)\d\d\)', ' ', cell.source, flags=re.S)
                prose += [(path.stem, *f) for f in figures(text)]
            else:
                texts = [cell.source] + [o.get('text', '') + str(o.get('data', {}).get('text/plain', '')) for o in cell.outputs]
                pool |= {float(n) for t in texts for n in re.findall(r'\d*\.\d+|\d+', t)}
    assert len(prose) > 20
    for stem, value, decimals in prose:
        found = value in cited or any(round(p*scale, decimals) == value for p in pool for scale in (1, 100))
        assert found, f'{stem} says {value}, and no output or code does'


# Executed.

def exercises(nb):
    "Each exercise as (index of the starter cell, of its check, the solution's code)."
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == 'markdown' and '<details><summary>Solution' in cell.source:
            yield i - 2, i - 1, re.search(r'```python\n(.*?)```', cell.source, re.S)[1]


wrong = {  # an answer that a reader might give, for each exercise in order
    '00_data': ['my_shape = (60000, 28, 28)', 'my_ink = torch.stack([x[y == d].sum() for d in range(10)])',
                'my_labels = y_hot.argmax(0)', 'my_x, my_y = x[torch.randperm(len(x))], y[torch.randperm(len(y))]'],
    '01_pixel_similarity': ['my_shape = (10, 784)', 'def my_linf(a, b): return (a - b).max(-1).values',
                            'my_medians = means', 'my_blank = torch.ones(784)'],
    '02_linear_model': ['my_signs = [1, -1, 1]', 'def my_step(p, lr): p.data += lr*p.grad; p.grad.zero_()',
                        'def my_grad(scores, targets): return scores.sigmoid() - targets', 'my_score = 8'],
    '03_two_layer_net': ['my_count = 784*500*10', 'def my_ce(scores, targets): return -(scores.sigmoid().log()*targets).sum(1).mean()',
                         'my_costs = [.1, .1, .1]', 'my_b1 = torch.zeros(500)'],
    '04_backprop': ['my_signs = [-1, 1]', 'def my_softplus(value): return (value.exp() + 1).log()',
                    'my_grads = lambda xb, t, *params: sigmoid_net_grads(xb, t, *sigmoid_net(xb, *params), params[2])',
                    'my_counts = [2**30, 31]'],
    '05_training_well': ['my_factors = [19, 99]', 'def my_decay(params, lr, decay):\n    for p in params: p.data.mul_(1 - decay)',
                         'my_sums = [.8, .5, .25]', 'my_degrees = 20']}


def with_answers(nb, stem):
    "The notebook with, behind each exercise's check, a wrong answer and the solution, each followed by the check."
    cells, tried = list(nb.cells), []
    for (start, check, solution), bad in reversed(list(zip(exercises(nb), wrong[stem], strict=True))):
        again = [nbformat.v4.new_code_cell(s) for s in (bad, cells[check].source, solution, cells[check].source)]
        tried.append((cells[check], again[1], again[3]))
        cells[check + 1:check + 1] = again
    return nbformat.v4.new_notebook(cells=cells, metadata=nb.metadata), tried


@cache
def answered(path):
    "The chapter, executed with answers to its exercises, and those."
    nb, tried = with_answers(read(path), path.stem)
    return series.execute(nb), tried


@each_chapter
def test_runs_and_its_checker_tells_right_from_wrong(path):
    nb, tried = answered(path)
    assert 3 <= len(tried) <= 6
    for untouched, bad, solved in tried:
        assert printed(untouched).startswith('Not yet')
        # an exercise may print what it measured before the checker's line
        assert printed(bad).splitlines()[-1].startswith('Not yet'), bad.source
        assert printed(solved).splitlines()[-1].startswith('Right'), printed(solved)
    for cell in code_of(nb): assert not any(out.get('name') == 'stderr' for out in cell.outputs), cell.source


@pytest.mark.parametrize('path', series.chapters[1:3], ids=lambda p: p.stem)
def test_gives_the_same_figures_twice(path):
    def figures(nb): return [{k: v for k, v in row.items() if k != 'seconds'} for row in series.results(nb)]
    assert figures(answered(path)[0]) == figures(series.execute(read(path)))


def test_a_failing_chapter_is_named_and_stops_the_run(tmp_path):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('1/0')])
    nbformat.write(nb, tmp_path/'broken.ipynb')
    run = subprocess.run([sys.executable, series.ROOT/'tools'/'series.py', tmp_path/'broken.ipynb'],
                         capture_output=True, text=True)
    assert run.returncode == 1 and 'broken.ipynb stopped' in run.stderr and 'ZeroDivisionError' in run.stderr
    (series.RUN/'broken.ipynb').unlink()


def test_readme_table_is_what_the_chapters_measured():
    readme = (series.ROOT/'README.md').read_text(encoding='utf-8')
    rows = [row for path in series.chapters for row in series.results(read(path))]
    assert len(rows) >= 7
    for row in rows:
        assert f"| {row['model']} | {row['measured']} |" in readme
        if row['accuracy'] is not None: assert f"{row['accuracy']:.2%}" in readme


def test_readme_example_runs_as_it_stands():
    blocks = re.findall(r'```python\n(.*?)```', (series.ROOT/'README.md').read_text(encoding='utf-8'), re.S)
    run = subprocess.run([sys.executable, '-c', '\n'.join(blocks)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert len(re.findall(r'loss \d\.\d+, accuracy 0\.\d+', run.stdout)) == 3
