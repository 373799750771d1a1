"The notebooks: as committed, and executed on the data that MNIST_FOUNDATIONS_DATA names (the sample, by default)."
import ast, csv, random, re, subprocess, sys
from functools import cache
from importlib import import_module

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

import metadata
import series

PACKAGE = series.ROOT/'mnist_foundations'
notebooks = sorted(series.NBS.glob('*.ipynb'))
appendices = [path for path in notebooks if path.stem.startswith('appendix')]


def each(paths):
    "A test for each notebook; all of one notebook go to one process, which executes it once."
    params = [pytest.param(path, id=path.stem, marks=pytest.mark.xdist_group(path.stem)) for path in paths]
    return pytest.mark.parametrize('path', params)

def read(path): return nbformat.read(path, as_version=4)

def code_of(nb): return [c for c in nb.cells if c.cell_type == 'code' and c.source.strip()]

def printed(cell): return ''.join(out.get('text', '') for out in cell.outputs)

def folded(cell): return bool(cell.metadata.get('jupyter', {}).get('source_hidden'))

def module_of(nb):
    "The module that the notebook exports, None where it exports none."
    found = re.search(r'^#\| default_exp (\w+)', '\n'.join(c.source for c in code_of(nb)), re.M)
    return found and found[1]

def headed(nb):
    "Each cell with the text of the heading of the second level that it stands under, and of the nearest heading."
    section = nearest = ''
    for cell in nb.cells:
        if cell.cell_type == 'markdown':
            for level, title in re.findall(r'^(#{1,4}) (.+)', re.sub(r'```.*?```', '', cell.source, flags=re.S), re.M):
                nearest = title
                if len(level) <= 2: section = title
        yield cell, section, nearest

def lessons(nb):
    "The code cells apart from exercises and from the line that names the module, each with its nearest heading."
    return [(cell, nearest) for cell, section, nearest in headed(nb) if cell.cell_type == 'code' and cell.source.strip()
            and not section.startswith('Exercises') and '#| default_exp' not in cell.source]


# As committed.

def test_one_notebook_for_each_module_and_none_left_over():
    exported = [module_of(read(path)) for path in notebooks if path.stem != 'index']
    modules = [path.stem for path in PACKAGE.glob('*.py') if path.stem[0] != '_']
    assert sorted(map(str, exported)) == sorted(modules)


@each(notebooks)
def test_committed_executed_clean_and_described(path):
    nb = read(path)
    assert path.stat().st_size < 2**20
    assert nb.metadata.kernelspec.name == 'python3'        # without it JupyterLab opens a dialog
    assert any(cell.outputs for cell in code_of(nb))
    silent = [cell.id for cell in code_of(nb) if re.search(r'^print\(', cell.source, re.M) and not cell.outputs]
    assert not silent, f'these print and have no output: {silent}'
    for cell in code_of(nb):
        assert len(cell.source.splitlines()) <= 25, cell.source
        for out in cell.outputs:
            assert out.output_type != 'error' and out.get('name') != 'stderr', cell.source
            assert not re.search(r'/(?:home|root|tmp)/', str(out.get('text', '')) + out.get('data', {}).get('text/plain', ''))


@each(notebooks)
def test_every_picture_has_its_alt_text_where_jupyter_and_where_the_site_looks(path):
    for cell in code_of(read(path)):
        texts = metadata.alts(cell)
        assert all(texts), cell.source
        if texts: assert all(text in cell.metadata['mystnb']['image']['alt'] for text in texts), "run 'make sync'"
        assert folded(cell) == ('hide-input' in cell.metadata.get('tags', [])), "run 'make sync'"


def test_committed_outputs_hold_no_widget_and_keep_its_picture():
    cell = nbformat.v4.new_code_cell('DigitCanvas()', outputs=[nbformat.v4.new_output('display_data', data={
        'application/vnd.jupyter.widget-view+json': {'model_id': '7'}, 'image/png': '', 'text/plain': 'a picture'},
        metadata={'image/png': {'alt': 'a picture'}})])
    metadata.derive(cell)
    assert set(cell.outputs[0].data) == {'image/png', 'text/plain'} and cell.metadata['mystnb']['image']['alt'] == 'a picture'
    for path in notebooks: assert 'widget-view+json' not in path.read_text(encoding='utf-8')


@each(notebooks)
def test_whoever_hosts_the_project_changes_one_line(path):
    cfg = metadata.settings()
    for there in (cfg, dict(cfg) | dict(user='somebody', git_url='https://example.org/somebody/fork')):
        nb = read(path)
        for cell in nb.cells: metadata.address(cell, path.stem, there)
        if there is cfg: assert nb == read(path), "run 'make sync'"
        else: assert f"{cfg['user']}/" not in ''.join(cell.source for cell in nb.cells)
    assert path.stem == 'index' or f"somebody/fork@{cfg['branch']}" in nb.cells[0].source + nb.cells[1].source


@each(notebooks)
def test_links_between_the_files_of_the_project_hold(path):
    for cell in read(path).cells:
        if cell.cell_type != 'markdown': continue
        for target in re.findall(r'\]\((?!https?:|#|attachment:)([^)#\s]+)', re.sub(r'`[^`]*`', '', cell.source)):
            assert (path.parent/target).exists(), target


@each(series.chapters)
def test_every_solution_begins_with_a_hint_that_does_not_give_it_away(path):
    nb = read(path)
    for _, check, solution in exercises(nb):
        source = nb.cells[check + 1].source
        hint = re.match(r'<details><summary>Hint</summary>\n\n([^<]+)\n</details>\n\n<details><summary>Solution', source)
        assert hint and 5 <= len(hint[1].split()) <= 50, source
        for line in map(str.strip, solution.splitlines()):
            assert ('=' not in line and len(line) <= 12) or line not in hint[1], line


@each(series.chapters + appendices)
def test_most_code_follows_prose_and_cells_are_short(path):
    cells = [c for c in read(path).cells if c.source.strip() and '#| default_exp' not in c.source]
    after_prose = [before.cell_type == 'markdown' for before, c in zip(cells, cells[1:]) if c.cell_type == 'code']
    chapter = path in series.chapters                 # an appendix is made of functions, and longer ones
    assert sum(after_prose)/len(after_prose) > (.5 if chapter else .4)
    lines = sorted(len(c.source.splitlines()) for c in cells
                   if c.cell_type == 'code' and '#| export' not in c.source and not folded(c))
    assert lines[len(lines)//2] <= (5 if chapter else 6) and lines[int(.9*len(lines))] <= 12


@each(series.chapters + appendices)
def test_few_cells_and_what_is_visible_shows_something(path):
    cells = lessons(read(path))
    visible = [cell for cell, _ in cells if not folded(cell)]
    assert len(visible) <= 60
    for heading in dict.fromkeys(nearest for _, nearest in cells):
        under = [cell for cell, nearest in cells if nearest == heading and not folded(cell)]
        assert len(under) <= 6 or path in appendices, f'{len(under)} code cells under {heading!r}'
    for cell in visible:      # a check that prints nothing interrupts a reader
        silent = not cell.outputs and re.search(r'^\s*(?:assert\b|assert_close|test_\w+\()', cell.source, re.M)
        assert not silent, f'to be folded, or to print what it checks:\n{cell.source}'
    for cell, _ in cells: assert not (folded(cell) and '#| export' in cell.source), f'exported and hidden:\n{cell.source}'


def blocks(tree):
    "Each list of statements in `tree`."
    for node in ast.walk(tree):
        for field in ('body', 'orelse', 'finalbody'):
            if isinstance(block := getattr(node, field, None), list): yield block


@each(series.chapters + appendices)
def test_one_statement_a_line(path):
    for cell in code_of(read(path)):
        source = '\n'.join(line for line in cell.source.splitlines() if not re.match(r'\s*[%!]', line))
        for block in blocks(ast.parse(source)):
            for before, after in zip(block, block[1:]):
                assert before.end_lineno < after.lineno, cell.source.splitlines()[after.lineno - 1]


@each(notebooks)
def test_every_exported_name_is_used_in_a_later_cell(path):
    cells = code_of(read(path))
    for i, cell in enumerate(cells):
        if not cell.source.startswith('#| export'): continue
        for node in ast.parse(cell.source).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_'):
                uses = [c for c in cells[i + 1:] if '#| export' not in c.source and re.search(rf'\b{node.name}\b', c.source)]
                assert uses, f'{node.name} is exported and never tried'
                assert any(c.outputs or re.search(r'\btest_|\bassert', c.source) for c in uses), f'{node.name} has no check'


@pytest.mark.parametrize('module', sorted(path.stem for path in PACKAGE.glob('*.py') if path.stem[0] != '_'))
def test_public_functions_say_what_they_take_and_return(module):
    m = import_module(f'mnist_foundations.{module}')
    source = (PACKAGE/f'{module}.py').read_text(encoding='utf-8')
    for name in m.__all__:
        public = getattr(m, name)
        if callable(public): assert public.__doc__, f'{name} has no docstring'
    tree, lines = ast.parse(source), source.splitlines()
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in m.__all__]
    for node in [node for part in (tree, *classes) for node in part.body if isinstance(node, ast.FunctionDef)]:
        if re.match('_(?!_)', node.name): continue
        a = node.args
        taken = [arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if arg and arg.arg not in ('self', 'cls')]
        for arg in taken:
            assert arg.annotation, f'{node.name}: {arg.arg} has no type'
            assert node.name not in m.__all__ or '#' in lines[arg.lineno - 1], f'{node.name}: {arg.arg} has no comment'
        assert node.returns or node.name == '__init__', f'{node.name} has no type of what it returns'


# Figures in prose.

PUBLISHED = 'published|tutorial|recipe|Flath|Howard|fastbook|LeCun'      # whoever gives one of these names its source
cited = {34.81, 74.87, 69.28, 92.3, 98.4, 99.3}

def prose_of(cell):
    "The sentences of a text cell, without code, formulas, sources, years and the versions of Python."
    text = re.sub(r'```.*?```|`[^`]*`|\$[^$]*\$|\*\*Sources\.\*\*.*|\([^)]*\b(?:19|20)\d\d\)|Python \d[\d.]*( to \d[\d.]*)?',
                  ' ', cell.source, flags=re.S)
    return re.split(r'(?<=[.!?])\s+', text)

def figures(sentence):
    "Decimal numbers and percentages as (value, number of decimals, is it a percentage)."
    for number, decimals, percent in re.findall(r'(?<![\w.,])(\d+(?:\.(\d+))?)(%?)(?![\w%]|\.\d)', sentence):
        if decimals or percent: yield float(number), len(decimals), bool(percent)

def shown(cell):
    "What a reader of a code cell sees of numbers: its source, unless it is folded, and its outputs."
    texts = [] if folded(cell) else [cell.source]
    for out in cell.outputs:
        data = out.get('data', {})
        texts.append(out.get('text', '') + data.get('text/plain', '') + data.get('text/markdown', ''))
    return '\n'.join(texts)

def stands_in(text, value, decimals, percent):
    "Whether `text` has the figure, as it is or with more decimals; a percentage also as a share between 0 and 1."
    for number, places, sign in re.findall(r'(?<![\w.])(\d*(?:\.(\d+))?)(%?)', text):
        if not number.strip('.'): continue
        as_it_is = len(places) >= decimals and (not percent or sign)
        share = percent and not sign and len(places) >= 2 and len(places) >= decimals + 2 and float(number) <= 1
        exactly = percent and not sign and places and float(number) < 1 and round(100*float(number), decimals) == value
        if as_it_is and round(float(number), decimals) == value: return True
        if share and round(100*float(number), decimals) == value: return True
        if exactly and abs(100*float(number) - value) < 1e-9: return True
    return False

@cache
def recorded_rows():
    "The rows of each committed result, by its name."
    files = sorted((PACKAGE/'results').glob('*.csv'))
    return {f.stem: list(csv.DictReader(f.read_text(encoding='utf-8').splitlines())) for f in files}

def in_a_named_row(sentence, figure):
    "Whether the figure is in a row of a result that the sentence names, by the result's name and one of the row's words."
    for name, rows in recorded_rows().items():
        if not re.search(rf'\b{name}\b', sentence): continue
        for row in rows:
            named = any(not re.fullmatch(r'[-\d.e]*', value) and value in sentence for value in row.values())
            if named and stands_in(' '.join(row.values()), *figure): return True
    return False

def unsupported(nb, i):
    "The figures in text cell `i` for which neither a cell near by nor a named row nor a named publication stands."
    near = nb.cells if module_of(nb) is None else nb.cells[max(i - 6, 0):i + 4]    # the README is one screen
    text = '\n'.join(shown(cell) for cell in near if cell.cell_type == 'code')
    if nb.cells[i].source.startswith('# '):      # what the title promises is what the chapter measured
        text += ' '.join(f"{row['accuracy']:.4f}" for row in series.results(nb) if row['accuracy'])
    text += '\n'.join(re.findall(r'```python\n(.*?)```', nb.cells[i].source, re.S))    # the solution of an exercise
    by_hand = '<details><summary>Solution' in nb.cells[i].source      # steps of a calculation, whose end the checker tests
    for sentence in prose_of(nb.cells[i]):
        for figure in figures(sentence):
            if by_hand and not figure[2]: continue
            published = figure[0] in cited and re.search(PUBLISHED, nb.cells[i].source)
            if not (published or stands_in(text, *figure) or in_a_named_row(sentence, figure)): yield figure, sentence


@each(notebooks)
def test_every_figure_in_prose_stands_near_by(path):
    nb = read(path)
    lost = [f'{value:.{places}f}{"%"*percent} in: {sentence.strip()}' for i, cell in enumerate(nb.cells)
            if cell.cell_type == 'markdown' for (value, places, percent), sentence in unsupported(nb, i)]
    assert not lost, '\n'.join(lost)


def test_invented_figures_are_refused():
    rng, refused = random.Random(0), 0
    places = [(path, i) for path in series.chapters for i, cell in enumerate(read(path).cells) if cell.cell_type == 'markdown']
    for n in range(100):
        path, i = rng.choice(places)
        nb, decimals = read(path), n % 3
        nb.cells[i].source = f'Of these the net reads {rng.uniform(0, 100):.{decimals}f}% correctly.'
        refused += any(True for _ in unsupported(nb, i))
    assert refused >= 95


# Executed.

UNTOUCHED = 'Not yet: there is no answer in the cell above.'

def exercises(nb):
    "Each exercise as (index of the starter cell, of its check, the solution's code)."
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == 'markdown' and '<details><summary>Solution' in cell.source:
            yield i - 2, i - 1, re.search(r'```python\n(.*?)```', cell.source, re.S)[1]


def expected_by(check):
    "Code that prints what the check expects, in the ways in which it could give it away."
    for node in ast.parse(check).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and getattr(node.value.func, 'id', '') == 'check_answer':
            value = ast.unparse(node.value.args[1])
            return f'for _form in (str, repr): print(_form(({value}).tolist() if hasattr({value}, "tolist") else ({value})))'
    return ''


def tried(nb):
    """The notebook with each cell twice in a row where it is to stand that, and behind each exercise's check a wrong
    answer and the solution, each followed by the check; with the pairs of cells, and each exercise's four cells."""
    test = import_module(f'test_{module_of(nb)}') if list(exercises(nb)) else None
    answers = {check: (solution, bad) for (_, check, solution), bad
               in zip(exercises(nb), test.wrong_answers if test else [], strict=True)}
    cells, twice, checked = [], [], []
    for i, cell in enumerate(nb.cells):
        cells.append(cell)
        if cell.cell_type == 'code' and cell.source.strip():
            cells.append(nbformat.v4.new_code_cell(cell.source))
            twice.append((cell, cells[-1]))
        if i in answers:
            solution, bad = answers[i]
            again = [nbformat.v4.new_code_cell(s) for s in (bad, cell.source, solution, cell.source, expected_by(cell.source))]
            checked.append((cell, again[1], again[3], again[4]))
            cells += again
    return nbformat.v4.new_notebook(cells=cells, metadata=nb.metadata), twice, checked


@cache
def run(path):
    "What `tried` gives, and where the notebook stopped, None if it came through."
    nb, twice, checked = tried(read(path))
    try: series.execute(nb)
    except CellExecutionError as e: return nb, twice, checked, re.sub(r'\x1b\[[\d;]*m', '', str(e))
    return nb, twice, checked, None


def executed(path):
    "The notebook, executed with answers to its exercises, and what `tried` tells of it."
    *what, error = run(path)
    assert not error, error
    return what


@each(series.chapters)
def test_its_checker_tells_right_from_wrong(path):
    nb, _, checked = executed(path)
    starts = re.findall(r'\*\*\d+\. ', '\n'.join(cell.source for cell in nb.cells if cell.cell_type == 'markdown'))
    assert 5 <= len(checked) <= 6 and len(starts) > len(checked), 'five or six, and an open one'
    for untouched, bad, solved, expected in checked:
        assert printed(untouched).strip().splitlines()[-1] == UNTOUCHED
        # an exercise may print what it measured before the checker's line
        verdict = printed(bad).splitlines()[-1]
        assert verdict.startswith('Not yet') and verdict != UNTOUCHED, bad.source
        assert printed(solved).splitlines()[-1].startswith('Right'), printed(solved)
        if re.fullmatch(r'Not yet: \d+ of \d+ values are off, by up to \S+\.', verdict): continue   # how many and how far
        for form in printed(expected).splitlines():
            assert not re.search(rf'(?<![\w.]){re.escape(form)}(?![\w.])', verdict), f'gives the answer away: {verdict}'


@each(series.chapters + appendices + [series.NBS/'index.ipynb'])
def test_runs_without_a_warning(path):
    for cell in code_of(executed(path)[0]):
        assert not any(out.get('name') == 'stderr' for out in cell.outputs), cell.source


def comparable(cell):
    """What the cell says, without what may differ: addresses, seconds, rounding (0e+00, 3e-16: which way sums are added
    up depends on where in memory a tensor lies), and all numbers of a cell that tells the time."""
    texts = []
    for out in cell.outputs:
        data = out.get('data', {})
        if series.RESULTS in data: texts.append(str([{k: v for k, v in row.items() if k != 'seconds'} for row in data[series.RESULTS]]))
        elif data.get('text/plain') != '<IPython.core.display.HTML object>':       # a progress bar
            texts.append(out.get('text', '') + data.get('text/plain', ''))
    text = re.sub(r'0x[0-9a-f]+|\b0e\+00\b|\b\de-(?:0[6-9]|[1-9]\d)\b', '', ''.join(texts))
    times = re.search(r'perf_counter|\btime\.time\b|timeit', cell.source) or re.search(r'\bseconds?\b|\d (?:s|ms|µs)\b|\d:\d\d', text)
    return re.sub(r'[\d.]+', '', text) if times else text


@each(series.chapters + appendices)
def test_any_cell_runs_twice_in_a_row_and_says_the_same(path):
    for first, second in executed(path)[1]: assert comparable(second) == comparable(first), first.source


def test_a_failing_chapter_is_named_and_stops_the_run(tmp_path):
    for name, code in (('broken', '1/0'), ('beside', 'import time; time.sleep(600)')):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), tmp_path/f'{name}.ipynb')
    ended = subprocess.run([sys.executable, series.ROOT/'tools'/'series.py', tmp_path/'broken.ipynb', tmp_path/'beside.ipynb'],
                           capture_output=True, text=True, timeout=120)      # the one beside it doesn't go on
    assert ended.returncode == 1 and 'broken.ipynb stopped' in ended.stderr and 'ZeroDivisionError' in ended.stderr
    for name in ('broken', 'beside'): (series.RUN/f'{name}.ipynb').unlink()


@pytest.mark.parametrize('was, now, measured, fine', [
    (.95, .944, '0 to 9, test', True), (.95, .956, '0 to 9, test', True), (.95, .943, '0 to 9, test', False),
    (.95, .94, '3 or 7, test', True), (.95, .93, '3 or 7, test', False)])
def test_three_standard_errors_are_allowed(was, now, measured, fine):
    rows = [dict(chapter='99', model='a net', measured=measured, accuracy=a, seconds=None) for a in (now, was)]
    assert (list(series.differing(rows[:1], rows[1:])) == []) == fine      # .0065 of 10,000 images, .0146 of 2,000


def test_the_lottery_of_the_recipe_is_bounded():
    row = dict(chapter='03', model='the published recipe', measured='0 to 9, test', accuracy=.3, seconds=None)
    assert not list(series.differing([row], [row | {'accuracy': .1}]))
    assert list(series.differing([row | {'accuracy': .7}], [row]))


# The README.

readme = (series.ROOT/'README.md').read_text(encoding='utf-8')

def test_readme_has_one_row_a_chapter_with_figures_that_the_chapters_measured():
    for path in series.chapters:
        line, = [line for line in readme.splitlines() if line.startswith('|') and f'](nbs/{path.name})' in line]
        measured = {f"{row['accuracy']:.2%}" for row in series.results(read(path)) if row['accuracy'] is not None}
        found = set(re.findall(r'\d+\.\d\d%', line))
        assert found <= measured and bool(found) == bool(measured), line


def test_readme_example_runs_as_it_stands():
    blocks = re.findall(r'```python\n(.*?)```', readme, re.S)
    ended = subprocess.run([sys.executable, '-c', '\n'.join(blocks)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert len(re.findall(r'loss \d\.\d+, accuracy 0\.\d+', ended.stdout)) == 3
