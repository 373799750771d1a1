import math

import pytest
import torch
from scipy.stats import norm

from long_experiments import check_again, needs_all, piles, recorded_rows, script
from mnist_foundations.choices import accuracy_interval, best_of_many, mcnemar, show_intervals
from mnist_foundations.data import one_hot

wrong_answers = ['my_p_values = [11/1024, 1/1024]', 'my_two = [20_000, 2.]',
                 'def my_p(only_a, only_b): return 2**-abs(only_a - only_b)',
                 'def my_report(right): return flattering_report(right)',
                 'my_a = torch.arange(1000) < 970\nmy_b = torch.arange(1000) >= 30']


def bools(text): return torch.tensor([c == '1' for c in text])


# An interval.

@pytest.mark.parametrize('right, n, low, high', [        # worked out from Wilson's formula
    (97, 100, .91548, .98975), (9770, 10_000, .97387, .97976), (0, 10, 0, .27753), (10, 10, .72247, 1)])
def test_wilsons_interval_by_hand(right, n, low, high):
    assert accuracy_interval(right, n) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize('confidence', [.5, .9, .99])
def test_its_ends_are_the_accuracies_from_which_the_result_lies_so_many_standard_errors_away(confidence):
    for p in accuracy_interval(30, 40, confidence):
        away = abs(.75 - p)/(p*(1 - p)/40)**.5
        assert away == pytest.approx(norm.ppf((1 + confidence)/2), rel=1e-6)


@pytest.mark.parametrize('right, n, confidence, error', [(.97, 100, .95, TypeError), (11, 10, .95, ValueError), (1, 2, 2, ValueError)])
def test_no_interval_of_what_is_no_count(right, n, confidence, error):
    with pytest.raises(error): accuracy_interval(right, n, confidence)


# Two nets on the same images.

def test_p_values_by_hand():
    a, b = bools('1111111001'), bools('1111001010')
    assert mcnemar(a, b) == (pytest.approx(10/16), 3, 1) and mcnemar(b, a) == (pytest.approx(10/16), 1, 3)
    assert mcnemar(a, a) == (1., 0, 0)
    assert mcnemar(bools('1111111110'), bools('0000000001')) == (pytest.approx(22/1024), 9, 1)
    assert mcnemar([True, False], [False, False]) == (pytest.approx(1.), 1, 0)      # one coin tells nothing


def test_images_on_which_both_agree_count_for_nothing():
    a, b = bools('11100'), bools('00011')
    more_a, more_b = torch.cat([a, bools('1'*50 + '0'*50)]), torch.cat([b, bools('1'*50 + '0'*50)])
    assert mcnemar(a, b) == mcnemar(more_a, more_b)


def test_equals_are_told_apart_no_more_often_than_promised():
    g = torch.Generator().manual_seed(0)
    found = [mcnemar(*(torch.rand(2, 500, generator=g) < .9))[0] < .05 for _ in range(300)]
    assert sum(found)/300 <= .06


def test_hits_are_booleans_of_the_same_images():
    with pytest.raises(TypeError, match='right_b is torch.int64; expected booleans'): mcnemar([True], [1])
    with pytest.raises(ValueError, match='right_a'): mcnemar([True, False], [True])
    with pytest.raises(ValueError, match=r'right_a has the shape \(1, 2\)'): mcnemar([[True, False]], [True, False])
    with pytest.raises(ValueError, match='right has the shape'): best_of_many([True, False], 1)
    with pytest.raises(ValueError, match='n_tried is 0'): best_of_many([[True, False]], 0)
    with pytest.raises(ValueError, match='n_tried is 2'): best_of_many([[True, False]], 2)


# The best of many.

def gains(right, n_tried, n_draws=400, seed=0): return best_of_many(right, n_tried, n_draws, torch.Generator().manual_seed(seed))

def test_merit_goes_with_the_winner_and_one_has_no_luck():
    good, bad = [True]*12, [False]*12
    assert gains([good, bad], 2, 5) == pytest.approx([.5, .5])
    assert gains([good, bad, bad, bad], 4, 5) == pytest.approx([.75, .75])
    assert gains(torch.rand(5, 20) < .5, 1, 5) == [0., 0.]


def test_the_luck_of_equals_is_the_expected_maximum():
    coins = torch.rand(400, 2000, generator=torch.Generator().manual_seed(1)) < .9
    expected = {2: 1/math.pi**.5, 8: 1.4236}                    # of 2 and 8 normal numbers
    for n_tried, errors in expected.items():
        here, there = gains(coins, n_tried)
        assert here == pytest.approx(errors*(.9*.1/1000)**.5, rel=.12)
        assert there == pytest.approx(0, abs=.0025)


def test_the_half_that_chooses_and_the_other_are_all_images_once():
    one_each = torch.tensor([[True, False], [False, True]])      # the winner is right here, and so wrong there
    assert gains(one_each, 2, 7) == pytest.approx([.5, -.5])


def test_draws_are_repeatable_and_averaged():
    coins = torch.rand(6, 100, generator=torch.Generator().manual_seed(2)) < .8
    assert gains(coins, 3) == gains(coins, 3) != gains(coins, 3, seed=1)
    short = [gains(coins, 3, 1, seed)[0] for seed in range(300)]
    assert sum(short)/300 == pytest.approx(gains(coins, 3, 2000)[0], abs=.004)
    torch.manual_seed(5)
    first = best_of_many(coins, 3)
    torch.manual_seed(5)
    g = torch.Generator().manual_seed(5)
    assert first == best_of_many(coins, 3) == best_of_many(coins, 3, 300, g)


def test_intervals_are_drawn_where_they_are():
    picture = show_intervals({'few': (97, 100), 'many': (9770, 10_000)}, alt='two')
    ax, = picture.fig.axes
    bars = [line.get_xdata() for line in ax.lines]
    assert picture.alt == 'two' and list(bars[0]) == pytest.approx(list(accuracy_interval(97, 100)))
    assert list(bars[1]) == [.97] and list(bars[3]) == [.977]
    assert 'few, many' in show_intervals({'few': (97, 100), 'many': (9770, 10_000)}).alt


# The long experiment.

@needs_all
def test_a_short_row_of_the_losses_comes_out_again():
    row = recorded_rows('losses').query("purpose == 'short' and loss == 'squared error, softmax'").iloc[0]
    split = [(x, one_hot(y)) for x, y in piles()]
    check_again(script('losses').one_run(split, 'short', row.loss, row.lr, int(row.seed), int(row.epochs)), row)


def test_every_reported_loss_was_trained_at_the_rate_that_other_seeds_chose():
    rows = recorded_rows('losses')
    for loss, report in rows[rows.purpose == 'report'].groupby('loss'):
        choose = rows[(rows.purpose == 'choose') & (rows.loss == loss)]
        best = choose.sort_values('valid_accuracy').lr.iloc[-1]
        assert report.lr.eq(best).all() and sorted(report.seed) == [0, 1, 2] and not set(report.seed) & set(choose.seed)
