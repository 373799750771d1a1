"What the pictures show, the checker of answers, and the tables: numbers worked by hand, and what must not be drawn wrong."
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from mnist_foundations import show
from mnist_foundations.show import (Picture, Results, blank_figure, check_answer, recorded, short_number, show_bars,
                                    show_confusion, show_curves, show_digits, show_equation, show_mistakes, show_network,
                                    show_pixels, show_spread)
from no_float64 import there

nan, inf = float('nan'), float('inf')


def axes(picture): return picture.fig.axes[0]

def texts(picture): return [t.get_text() for t in axes(picture).texts]


# Every picture

drawn = [
    *(lambda alt, image=image: show_pixels(image, alt=alt) for image in (
        torch.rand(3, 28), torch.zeros(1, 1), torch.tensor([[0, 255]], dtype=torch.uint8), torch.randn(3, 4),
        torch.tensor([[True, False]]), torch.randn(3, 4, requires_grad=True), there(torch.rand(2, 2)), [[1, 2], [3, 4]])),
    *(lambda alt, images=images: show_digits(images, alt=alt) for images in (
        torch.rand(784), torch.zeros(1, 28, 28), torch.rand(11, 784), torch.randn(2, 784), there(torch.randn(2, 784)),
        torch.randn(2, 784, requires_grad=True), np.zeros((2, 28, 28), np.uint8))),
    lambda alt: show_digits(torch.rand(3, 784), titles=torch.tensor([3, 7, 3]), ncols=2, alt=alt),
    lambda alt: show_bars({0: 5, 'one': torch.tensor(2.5)}, 'digit', 'images', alt=alt),
    lambda alt: show_bars({0: 5, 'none': nan, 'two': there(torch.tensor(2.5))}, 'digit', 'images', alt=alt),
    lambda alt: show_curves({'a': [1, nan, 2], 'b': there(torch.rand(3))}, 'x', 'y', x=[1, 10, 100], log=True, alt=alt),
    lambda alt: show_curves({'a': [nan]}, 'x', 'y', alt=alt),
    lambda alt: show_spread({'one': [.5], 'two': [.1, .2]}, 'accuracy', alt=alt),
    lambda alt: show_confusion(there(torch.tensor([1])), np.array([0]), 2, alt=alt),
    lambda alt: show_confusion([1], there(torch.tensor([0])), 2, alt=alt),
    lambda alt: show_equation(there(torch.rand(2)), '@', (torch.rand(1, 1, requires_grad=True), (2, 1)), alt=alt),
    lambda alt: show_network([there(torch.randn(784)), [1.], np.zeros(3)], [there(torch.randn(784, 1)), torch.zeros(1, 3)], alt=alt)]


@pytest.mark.parametrize('picture', drawn)
def test_pictures_are_png_with_alt_text(picture):
    for alt in None, 'Six crows.':
        shown, metadata = picture(alt)._repr_mimebundle_()
        assert Image.open(io.BytesIO(shown['image/png'])).format == 'PNG'
        assert metadata['image/png']['alt'] == (alt or shown['text/plain']) and len(shown['text/plain']) > 5


def test_a_figure_of_its_own():
    fig = blank_figure(3, 2)
    assert tuple(fig.get_size_inches()) == (3, 2) and not fig.axes
    assert Picture(fig, 'Nothing.')._repr_mimebundle_()[0]['text/plain'] == 'Nothing.'


# Numbers and digits

@pytest.mark.parametrize('value, said', [(0, '0'), (3., '3'), (.25, '0.25'), (-1.006, '−1.01'), (1234.5, '1234.5'), (True, '1'),
                                         (.0049, '0.005'), (-.00031, '−0.0003'), (12, '12')])
def test_short_numbers(value, said): assert short_number(value) == said


def test_pixels_are_written_where_they_are():
    ax = axes(show_pixels(torch.tensor([[0., 1.], [.75, .25], [.5, .9]])))
    at = {t.get_position(): (t.get_text(), t.get_color()) for t in ax.texts}    # (column, row)
    assert at == {(0, 0): ('0', 'black'), (1, 0): ('1', 'white'), (0, 1): ('0.75', 'white'), (1, 1): ('0.25', 'black'),
                  (0, 2): ('0.5', 'black'), (1, 2): ('0.9', 'white')}
    assert min(t.get_fontsize() for t in ax.texts) >= 10


def test_signed_images_get_a_common_scale_around_zero():
    axes = show_digits(torch.stack([torch.full((784,), -3.), torch.ones(784)])).fig.axes
    assert [axes[i].images[0].get_clim() for i in (0, 1)] == [(-3, 3)]*2
    assert len(axes) == 3   # two images and the scale
    axes = show_digits(torch.stack([torch.full((784,), .5), torch.full((784,), 2.)])).fig.axes
    assert [ax.images[0].get_clim() for ax in axes] == [(0, 2)]*2


def test_digits_go_row_by_row():
    images = torch.arange(5.).view(5, 1).expand(5, 784)
    ax = show_digits(images, titles='abcde', ncols=2).fig.axes
    assert len(ax) == 6 and not ax[5].images                # three rows of two, and one place left empty
    assert [a.images[0].get_array()[0, 0] for a in ax[:5]] == [0, 1, 2, 3, 4]
    assert [a.get_title() for a in ax[:5]] == list('abcde')
    x = [a.get_subplotspec().colspan.start for a in ax]
    assert x == [0, 1]*3


@pytest.mark.parametrize('shape, height, width', [((2, 5, 3), 5, 3), ((1, 1, 9), 1, 9), ((2, 28, 28), 28, 28), ((3, 784), 28, 28),
                                                  ((784,), 28, 28), ((2, 1, 28, 28), 28, 28)])
def test_images_of_any_height_and_width(shape, height, width):
    numbers = torch.arange(float(np.prod(shape))).reshape(shape)
    picture = show_digits(numbers)
    images = numbers.reshape(-1, height, width)
    assert len(picture.fig.axes) == len(images)
    for ax, image in zip(picture.fig.axes, images): assert np.array_equal(ax.images[0].get_array(), image)
    assert picture.alt == f'{len(images)} images of {height} by {width} pixels.'


# Equations and networks

def test_equation_of_a_stretched_column_and_row():
    column, row = torch.tensor([[10.], [20]]), torch.tensor([1., 2, 3])
    ax = axes(show_equation((column, (2, 3)), '−', (row, (2, 3)), '=', column - row))
    found = sorted((round(t.get_position()[1], 2), t.get_position()[0], t.get_text(), t.get_color())
                   for t in ax.texts if t.get_fontsize() == 12)
    own, repeated = 'black', '#999'
    assert [(text, colour) for _, _, text, colour in found] == [
        ('10', own), ('10', repeated), ('10', repeated), ('1', own), ('2', own), ('3', own), ('9', own), ('8', own), ('7', own),
        ('20', own), ('20', repeated), ('20', repeated), ('1', repeated), ('2', repeated), ('3', repeated),
        ('19', own), ('18', own), ('17', own)]
    assert {y for y, *_ in found} == {.5, 1.5}
    low = axes(show_equation(column, '−', row))
    assert [t.get_position()[1] for t in low.texts if t.get_text() in '123'] == [1]*3      # half way up
    framed = [p for p in ax.patches if to_hex(p.get_edgecolor()) == '#222222']
    assert len(framed) == 2 + 3 + 6 and len(ax.patches) == 18
    assert [t for t in texts(show_equation(column, '−', row, '=', column - row)) if t in '−=(2, 1)(3,)(2, 3)' and len(t) != 2
            and not t.isdigit()] == ['(2, 1)', '−', '(3,)', '=', '(2, 3)']


def overlapping(boxes):
    return [(i, j) for i, a in enumerate(boxes) for j, b in enumerate(boxes[:i])
            if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2]      # pixels


def boxes(picture):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    canvas = FigureCanvasAgg(picture.fig)
    canvas.draw()
    return [t.get_window_extent(canvas.get_renderer()) for t in axes(picture).texts]


@pytest.mark.parametrize('picture', [
    lambda: show_equation((torch.tensor([[-1234.5], [.25]]), (2, 3)), '−', torch.full((3,), -10.2), '=', torch.zeros(2, 3)),
    lambda: show_network([[-10.25]*3, [.333]*2, [-.0461]*3], [torch.full((3, 2), -2.34), torch.full((2, 3), 1.23)], ['in', 'hidden', 'out']),
    lambda: show_network([[1.]*4, [1.]*3], [torch.full((4, 3), -1.23)], ['four pixels', 'three scores']),
    lambda: show_network([[1.]*784, [1.]*500, [1.]*10], names=['784 pixels', '500 hidden units', '10 scores'])])
def test_no_text_covers_another(picture):
    assert not overlapping(boxes(picture()))


def test_network_lines_say_which_weight_joins_what():
    ax = axes(show_network([[1, -2], [3, 0, .5]], [[[1., -2, .5], [0, 4, -1]]]))
    nodes = [p.get_center() for p in ax.patches]
    assert nodes == [(0, .5), (0, -.5), (3.2, 1), (3.2, 0), (3.2, -1)]
    for i, row in enumerate([[1., -2, .5], [0, 4, -1]]):
        for j, weight in enumerate(row):
            line = next(l for l in ax.lines if tuple(l.get_ydata()) == (nodes[i][1], nodes[2 + j][1]))
            assert line.get_linewidth() == pytest.approx(.3 + 3*abs(weight)/4)
            assert line.get_color() == ('#c03028' if weight > 0 else '#4878a8')
    at = {t.get_position(): t.get_text() for t in ax.texts}
    assert [at[node] for node in nodes] == ['1', '−2', '3', '0', '0.5']
    weight = {(round(x, 3), round(y, 3)): text for (x, y), text in at.items()}
    assert weight[.896, .64] == '1' and weight[.896, -.36] == '4'        # .28 of the way from a node to its neighbour
    assert weight[.896, .08] == '0.5' and weight[.896, -.08] == '0'


def test_network_of_many_draws_the_first_and_the_last():
    numbers = torch.arange(784.)
    picture = show_network([numbers, torch.arange(11.), torch.arange(10.)], [torch.ones(784, 11), torch.ones(11, 10)])
    assert len(axes(picture).patches) == 6 + 6 + 10 and len(axes(picture).lines) == 6*6 + 6*10
    assert texts(picture) == ['0', '1', '2', '3', '4', '783', '⋮', '0', '1', '2', '3', '4', '10', '⋮', *map(str, range(10))]
    assert picture.alt == 'A network: 784 nodes, then 11 nodes, then 10 nodes.'
    last = next(p for p in axes(picture).patches if p.get_center() == (0, -3))
    first = next(p for p in axes(picture).patches if p.get_center() == (0, 3))
    assert last.get_facecolor() != first.get_facecolor()           # shaded by its number


# Bars, curves, spreads

def test_bars_say_where_a_value_is_missing():
    picture = show_bars({'a': 1234, 'b': nan, 'c': .12345}, 'letter', 'height')
    assert [p.get_height() for p in axes(picture).patches] == [1234, 0, .12345]
    assert texts(picture) == ['1,234', 'no value', '0.1235']
    assert picture.alt == 'Bars of height by letter: a 1,234, b no value, c 0.1235.'


def test_curves_are_the_numbers_given_and_the_legend_covers_none():
    picture = show_curves({'up': [1, 2, 4], 'gap': [nan, 3, nan], 'none': [nan]*3}, 'step', 'height')
    assert [list(l.get_xdata()) for l in axes(picture).lines] == [[1, 2, 3]]*3
    assert list(axes(picture).lines[0].get_ydata()) == [1, 2, 4]
    assert picture.alt == 'height by step: up goes from 1 to 4; gap goes from 3 to 3; none has no values.'
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    FigureCanvasAgg(picture.fig).draw()
    legend, = picture.fig.legends
    assert legend.get_window_extent().x0 >= axes(picture).get_window_extent().x1
    assert not show_curves({'up': [1, 2]}, 'x', 'y').fig.legends
    assert axes(show_curves({'up': [1, 2]}, 'x', 'y', x=[1, 10], log=True)).get_xscale() == 'log'


def test_spread_draws_each_seed_and_the_mean():
    picture = show_spread({'a': [.5, .7, .9], 'b': [.1]}, 'accuracy')
    dots, mean, dot, same = axes(picture).lines
    assert list(dots.get_xdata()) == [.5, .7, .9] and list(mean.get_xdata()) == pytest.approx([.7, .7])
    assert list(dot.get_xdata()) == [.1] and list(dot.get_ydata()) == [1]
    assert texts(picture) == ['0.7000', '0.1000', 'mean']
    assert picture.alt == 'accuracy: a 0.5000 to 0.9000; b 0.1000 to 0.1000.'


# Mistakes

@pytest.mark.parametrize('dtype', [torch.int64, torch.int32, torch.uint8, torch.uint16])
def test_confusion_has_a_row_for_each_true_label(dtype):
    actual, predicted = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 1, 0, 2])
    picture = show_confusion(predicted.to(dtype), actual.to(dtype), 3)
    at = {t.get_position(): t.get_text() for t in axes(picture).texts}          # (column, row)
    assert [[at[c, r] for c in range(3)] for r in range(3)] == [['1', '2', ''], ['', '1', ''], ['1', '', '1']]
    share = axes(picture).images[0].get_array()
    assert np.allclose(share, [[1/3, 2/3, 0], [0, 1, 0], [.5, 0, .5]])
    colours = {t.get_position(): t.get_color() for t in axes(picture).texts}
    assert colours[1, 0] == 'white' and colours[0, 0] != 'white'         # on dark, and on pale
    assert axes(picture).get_xlabel() == 'answered' and axes(picture).get_ylabel() == 'true label'
    assert picture.alt == 'Confusion matrix; the most common mistake is answering 1 for 0, 2 times.'


def test_confusion_without_a_mistake_or_without_some_label():
    y = torch.tensor([3, 7, 7])
    assert show_confusion(y, y).alt == 'Confusion matrix; there is no mistake.'
    assert axes(show_confusion(y, y)).images[0].get_array()[0].tolist() == [0]*10


@pytest.mark.parametrize('predicted, actual, error, said', [
    ([10], [0], ValueError, 'predicted has labels from 10 to 10; expected 0 to 9'),
    ([0], [-1], ValueError, 'actual has labels from -1'),
    ([0, 1], [0], ValueError, 'predicted has 2 rows and actual has 1'),
    ([], [], (TypeError, ValueError), 'predicted'),
    ([0.5], [0], TypeError, 'predicted is torch.float32; expected integer labels'),
    ([[0]], [[0]], ValueError, r'predicted has the shape \(1, 1\); expected \(n,\)')])
def test_confusion_refuses(predicted, actual, error, said):
    with pytest.raises(error, match=said): show_confusion(torch.tensor(predicted), torch.tensor(actual))


# Answers and results

@pytest.mark.parametrize('answer, said', [
    (..., 'Not yet: there is no answer in the cell above.\n'), (None, 'Not yet: there is no answer in the cell above.\n'),
    ([..., ...], 'Not yet: there is no answer in the cell above.\n'),
    ((1, [None]), 'Not yet: there is no answer in the cell above.\n'),
    ('two', 'Not yet: the answer should be numbers'), ({1, 2}, 'Not yet: the answer should be numbers'),
    (print, 'Not yet: the answer should be numbers'),
    ([1.], 'Not yet: the shape is (1,); (2,) was expected'),
    ([1, 4], 'Not yet: 1 of 2 values are off, by up to 2.\n'), ([-2, 4], 'Not yet: 2 of 2 values are off, by up to 3.\n'),
    ([1, nan], 'Not yet: 1 of 2 values are off, by up to nan.\n'), ([1, inf], 'Not yet: 1 of 2 values are off, by up to inf.\n'),
    ([1, 2 + 1.5e-5], 'Not yet: 1 of 2'), (np.array([1, 2 + 1e-6]), 'Right, to within 1e-06.\n'),
    ((1, 2), 'Right, exactly.\n'), (torch.tensor([1, 2.], requires_grad=True), 'Right, exactly.\n'),
    (torch.tensor([1, 2], dtype=torch.bfloat16), 'Right, exactly.\n'), (there(torch.tensor([1., 2])), 'Right, exactly.\n'),
    (there(torch.tensor([1., 2.5])), 'Not yet: 1 of 2 values are off, by up to 0.5.\n')])
def test_check_answer(answer, said, capsys):
    for expected in [1, 2], there(torch.tensor([1., 2])):
        check_answer(answer, expected)
        assert capsys.readouterr().out.startswith(said)


def test_check_answer_of_one_number_and_of_infinity(capsys):
    for answer, expected in (3, 3.), (True, torch.tensor(True)), (-inf, -inf), (torch.tensor(.5), .5): check_answer(answer, expected)
    assert capsys.readouterr().out == 'Right, exactly.\n'*4
    check_answer(7, 12345.678)
    assert '12345' not in capsys.readouterr().out
    check_answer(3.1, 3, tol=.2)
    assert capsys.readouterr().out == 'Right, to within 0.1.\n'


def test_results_keep_their_rows_and_show_a_table():
    rows = [('net', 'testing images', .98765, None), ('none yet', 'loading', None, 1.26)]
    shown = Results('00 data', *rows)._repr_mimebundle_()
    kept = shown['application/vnd.mnist-foundations.results+json']
    names = 'chapter', 'model', 'measured', 'accuracy', 'seconds'
    assert kept == [dict(zip(names, ('00 data', *row), strict=True)) for row in rows]
    for text in shown['text/plain'], shown['text/html']:
        assert '0.9877' in text and '1.3' in text and 'None' not in text and 'nan' not in text.lower()


def test_recorded_says_what_was_run(tmp_path, monkeypatch, capsys):
    (tmp_path/'results').mkdir()
    (tmp_path/'results'/'toy.csv').write_text('rate,accuracy,version,threads,seconds\n1,.5,0.2.0,1,60\n2,.6,0.2.0,1,30\n')
    monkeypatch.setattr(show, 'files', lambda package: tmp_path)
    rows = recorded('toy')
    assert rows.accuracy.tolist() == [.5, .6]
    assert capsys.readouterr().out == '2 runs by `python benchmarks/toy.py`: version 0.2.0, threads 1, 1.5 minutes in all\n'
    with pytest.raises(FileNotFoundError, match='no results/grid.csv; `python benchmarks/grid.py` writes it'): recorded('grid')


def test_every_committed_result_can_be_read(capsys):
    for file in (Path(show.__file__).parent/'results').glob('*.csv'):
        assert len(recorded(file.stem)) and f'benchmarks/{file.stem}.py' in capsys.readouterr().out


def test_mistakes_have_their_titles_and_the_doubtful_are_red():
    picture = show_mistakes(torch.rand(13, 784), [f'{i} → 0' for i in range(13)], [False, True]*6 + [False], 'Thirteen mistakes.')
    axes = picture.fig.axes
    assert len(axes) == 24 and picture.alt == 'Thirteen mistakes.'
    assert [ax.get_title() for ax in axes[:3]] == ['0 → 0', '1 → 0 ?', '2 → 0'] and axes[12].get_title() == '12 → 0'
    assert [ax.title.get_color() for ax in axes[:2]] == ['black', '#c03028'] and len(axes[12].images) == 1 and not axes[13].images
