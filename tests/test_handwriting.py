"Appendix handwriting: strokes, pens, and photographs, each step with numbers."
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from mnist_foundations.data import load_mnist, mnist_path
from mnist_foundations.handwriting import (arc, blank_sheet, change_pens, handwriting, light_on, page_of_text, paper_photo, pen_images,
                                           pen_ink, photograph, row_of_digits, ruled_lines, stroke_points, ways_to_write, written)


@pytest.fixture(scope='module')
def digits():
    x, y = load_mnist(mnist_path(), 'testing')
    return x.view(-1, 28, 28).numpy()[::97], y[::97]


def rng(seed=0): return np.random.default_rng(seed)


def test_an_arc_goes_clockwise_from_the_right():
    assert_close(torch.tensor(arc((.5, .4), (.3, .2), 0, 270, 4)), torch.tensor([(.8, .4), (.5, .6), (.2, .4), (.5, .2)]))
    assert len(arc((0, 0), (1, 1), 0, 90)) == 9


def test_every_digit_has_ways_within_its_box():
    assert sorted(ways_to_write) == list(range(10))
    for ways in ways_to_write.values():
        for stroke in (stroke for way in ways for stroke in way):
            points = torch.tensor(stroke)
            assert len(points) >= 2 and points.min() > -.15 and points.max() < 1.15


def test_points_of_a_stroke():
    corner = torch.tensor([(0., 0), (2, 0), (2, 4)])
    assert_close(stroke_points(corner, 5, False), torch.tensor([(0., 0), (1, 0), (2, 0), (2, 2), (2, 4)]))
    # at a half, Catmull and Rom: (-a + 9b + 9c - d)/16, with ends continued straight on
    a, b, c, d = torch.tensor([(-2., 0), (0, 0), (2, 0), (2, 4)])
    assert_close(stroke_points(corner, 5, True)[1], (-a + 9*b + 9*c - d)/16)
    assert_close(stroke_points(corner, 5, True)[::2], corner)
    line = torch.tensor([(0., 1), (3, 1)])
    assert_close(stroke_points(line, 4, True), stroke_points(line, 4, False))


def test_written_differs_each_time_and_not_for_one_seed():
    first, again, other = (written(7, 1, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first.shape == (240, 2) and (first == again).all() and not (first == other).all()
    assert abs(first.mean()) < .3 and .5 < (first[:, 1].max() - first[:, 1].min()) < 1.6


def test_hands_differ_in_width_slant_and_turn():
    many = torch.stack([written(0, 0, torch.Generator().manual_seed(seed)) for seed in range(60)])
    wide = (many[..., 0].amax(1) - many[..., 0].amin(1))
    assert wide.min() < .5 and wide.max() > .8
    lean = [torch.linalg.lstsq(each[:, 1:], each[:, :1]).solution.item() for each in many]       # across, a pixel down
    assert min(lean) < -.3 and max(lean) > .1 and np.mean(lean) < -.02


def test_a_pen_leaves_a_bar_as_wide_as_itself_in_the_middle():
    bar = stroke_points(torch.tensor([(0., 0), (0, 1)]), 100, False)
    thin, thick = pen_images(torch.stack([bar, bar]), torch.tensor([2., 4])).view(2, 28, 28)
    for image, width in ((thin, 2), (thick, 4)):
        assert image[14].sum().item() == pytest.approx(width, abs=.05)
        rows = (image > .5).any(1).nonzero()
        assert rows.max() - rows.min() + 1 in (19, 20, 21)
        mass = image.sum()
        down, across = (image.sum(1)@torch.arange(28.))/mass, (image.sum(0)@torch.arange(28.))/mass
        assert abs(down - 14) <= .51 and abs(across - 14) <= .51


def test_handwriting_is_like_mnist_and_repeats():
    x, y = handwriting(80, 3)
    again, _ = handwriting(80, 3)
    assert x.shape == (80, 784) and x.dtype == torch.float32 and y.dtype == torch.int64 and (x == again).all()
    assert x.min() == 0 and x.amax(1).min() > .99
    images = x.view(-1, 28, 28)
    mass, places = images.sum((1, 2)), torch.arange(28.)
    for axis in (1, 2): assert ((images.sum(axis)@places)/mass - 14).abs().max() <= .51
    assert not (x == handwriting(80, 4)[0]).all()
    with pytest.raises(ValueError, match='n is 0'): handwriting(0)


def test_pens_change_both_ways_within_bounds():
    x, _ = handwriting(200, 0)
    torch.manual_seed(0)
    changed = change_pens(x)
    gain = changed.sum(1)/x.sum(1)
    assert changed.shape == x.shape and changed.min() >= 0 and changed.max() <= 1
    assert gain.min() < .6 and gain.max() > 1.5 and .35 < (gain > 1).float().mean() < .65
    images = x.view(-1, 1, 28, 28)
    thick, thin = torch.nn.functional.max_pool2d(images, 3, 1, 1), -torch.nn.functional.max_pool2d(-images, 3, 1, 1)
    assert (changed.view_as(images) <= thick + 1e-6).all() and (changed.view_as(images) >= thin - 1e-6).all()
    assert change_pens(x.double()).dtype == torch.float64


def test_pen_ink_has_the_height_asked_for_and_grows_both_ways(digits):
    image = digits[0][3]
    thin, same, thick = (pen_ink(image, 200, thicker) for thicker in (-1, 0, 1))
    tall = lambda ink: np.ptp(np.nonzero((ink > .5).any(1))[0]) + 1
    assert 180 <= tall(same) <= 215 and same.min() == 0 and same.max() == 1
    assert thin.sum() < same.sum() < thick.sum()
    assert 6 < tall(thick) - tall(same) < 14                         # half a pixel of 20 at each end: 10 of 200
    assert pen_ink(image, 200, -20).max() == 1                       # something is left


def test_light_and_lines():
    lit = [light_on((50, 70), rng(seed)) for seed in range(40)]
    assert all(each.shape == (50, 70) and .3 < each.min() and each.max() < 1.25 for each in lit)
    shadowed = [each.min() < .72*each.max() for each in lit]
    assert 4 <= sum(shadowed) <= 36
    lines = ruled_lines((60, 90), rng(1))
    assert lines.shape == (60, 90) and 0 < (lines > 0).mean() < .5 and .05 <= lines.max() <= .2


def test_a_photo_of_ink_is_darker_where_there_is_ink():
    ink = np.zeros((150, 150))
    ink[40:110, 60:90] = 1
    for seed in range(10):
        picture = paper_photo(ink, rng(seed))
        grey = np.asarray(picture.convert('L'), float)
        assert picture.format == 'JPEG' and picture.size == (150, 150)
        assert grey[50:100, 65:85].mean() < .85*grey[50:100, 5:50].mean()


def test_photographs_come_in_four_kinds_within_their_sizes(digits):
    images, _ = digits
    source, kinds = rng(2), {}
    for image in np.concatenate([images]*20)[:100]:
        picture, kind = photograph(image, source)
        kinds.setdefault(kind, picture)
        if len(kinds) == 4: break
        assert 120 <= picture.height <= 900 and .74 < picture.width/picture.height < 1.51
    assert set(kinds) == {'photo', 'drawing', 'light on dark', 'transparent'}
    assert kinds['transparent'].mode == 'RGBA' and np.median(np.asarray(kinds['light on dark'])) < 60
    assert np.median(np.asarray(kinds['drawing'])) > 220


def test_other_pictures(digits):
    assert np.asarray(blank_sheet(rng()).convert('L')).std() < 60
    assert page_of_text(rng()).height >= 400
    strip = row_of_digits(list(digits[0][:3]), rng())
    assert isinstance(strip, Image.Image) and strip.width > 1.3*strip.height
    assert math.isfinite(np.asarray(strip).mean())
