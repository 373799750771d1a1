"`exercises`: what a copy of a chapter says of what its reader solved."
import json, subprocess, sys

import nbformat
import pytest

import series
from mnist_foundations.exercises import exercises_of, has_gap, read_notebook, show_exercises
from test_notebooks import exercises as solutions


def changed(cells, **others):
    "A notebook's cells, some with another source and another output, by index: c7=(source, what it showed)."
    cells = list(cells)
    for i, (source, shown) in others.items():
        outputs = [dict(output_type='stream', name='stdout', text=[shown])] if shown else []
        cells[int(i[1:])] = dict(cell_type='code', source=source.splitlines(keepends=True), outputs=outputs)
    return cells


@pytest.mark.parametrize('path', series.chapters, ids=lambda path: path.stem)
def test_finds_each_exercise_of_a_chapter_with_its_hint_and_none_is_solved(path):
    found = exercises_of(read_notebook(path))
    expected = list(solutions(nbformat.read(path, as_version=4)))
    assert [each.number for each in found] == list(range(1, len(expected) + 1))
    assert all(each.hint and each.title and not each.solved for each in found)


@pytest.mark.parametrize('path', series.chapters, ids=lambda path: path.stem)
def test_an_answer_counts_with_its_verdict_and_an_untouched_place_never(path, tmp_path, capsys):
    cells, exercises = read_notebook(path), list(solutions(nbformat.read(path, as_version=4)))
    def solved(**others): return [each.solved for each in exercises_of(changed(cells, **others))]
    for n, (starter, check, solution) in enumerate(exercises):
        source, right = ''.join(cells[check]['source']), 'measured\nRight, exactly.\n'
        answered, verdict = {f'c{starter}': (solution, '')}, {f'c{check}': (source, right)}
        assert solved(**answered, **verdict) == [i == n for i in range(len(exercises))]
        for others in (verdict, answered, answered | {f'c{check}': (source, 'Not yet: 1 of 1 values are off.\n')}):
            assert not any(solved(**others)), others
    (tmp_path/path.name).write_text(json.dumps(dict(cells=changed(cells, **answered, **verdict))), encoding='utf-8')
    show_exercises(tmp_path)
    def plain(text): return ' '.join(text.replace('*', '').split())
    printed, hints = plain(capsys.readouterr().out), [plain(each.hint) for each in exercises_of(cells)]
    assert f'{path.stem}: 1 of {n + 1} solved ({n + 1})' in printed and f'1 of {n + 1} in all' in printed
    assert all(hint in printed for hint in hints[:-1]) and hints[-1] not in printed


def test_a_wrong_answer_brings_the_hint_and_an_old_copy_says_so(tmp_path, capsys):
    path = series.chapters[0]
    cells, (starter, check, _) = read_notebook(path), next(solutions(nbformat.read(path, as_version=4)))
    wrong = changed(cells, **{f'c{starter}': ('mine = 1', ''), f'c{check}': ('check_answer(mine, 2)', 'Not yet: …')})
    (tmp_path/path.name).write_text(json.dumps(dict(cells=wrong)), encoding='utf-8')
    show_exercises(tmp_path)
    assert capsys.readouterr().out.count('Hint: ') == 5
    (tmp_path/path.name).write_text(json.dumps(dict(cells=wrong)).replace('Hint</summary>', 'Else</summary>'), encoding='utf-8')
    show_exercises(tmp_path)
    assert capsys.readouterr().out.count('older than the') == 5


def test_no_hints_for_a_chapter_that_is_not_begun(capsys):
    show_exercises(series.NBS)
    printed = capsys.readouterr().out
    assert [line.partition(':')[0] for line in printed.splitlines()[:-1]] == [path.stem for path in series.chapters]
    assert 'Hint' not in printed and printed.count('0 of 5 solved') + printed.count('0 of 6 solved') == len(series.chapters)


@pytest.mark.parametrize('source, gap', [
    ('a = ...', True), ('def f(x): ...', True), ('a = [1, ...]', True), ('a = None', False), ('a = x[..., 0]', False),
    ('a = x[..., 0]\nb = ...', True), ('%time a = 1', False), ("a = '...'", False), ('', False)])
def test_gaps(source, gap): assert has_gap(source) == gap


def test_the_command_says_in_a_sentence_what_it_lacks(tmp_path):
    def ended(): return subprocess.run([sys.executable, '-m', 'mnist_foundations.exercises', tmp_path], capture_output=True, text=True)
    assert ended().returncode == 0 and ended().stdout.startswith('There is no notebook with exercises')
    (tmp_path/'torn.ipynb').write_text('{"cells"')
    assert ended().returncode == 1 and 'is not a notebook' in ended().stderr and 'Traceback' not in ended().stderr
