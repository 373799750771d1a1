"Chapter 10: places and pixels worked by hand, which way is positive, spreads, the recipe beside PyTorch's own loop."
import math, time
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn, tensor
from torch.testing import assert_close

from long_experiments import SHARED, check_again, needs_all, piles, recorded_rows, script, takes_minutes
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, one_hot
from mnist_foundations.distortion import (Distort, affine_weights, basis_fields, distort_by, doubtful_labels, image_numbers,
                                          random_weights, shifted, train_well)
from mnist_foundations.net import validate_epoch
from mnist_foundations.optimizers import one_cycle
from mnist_foundations.training import TwoLayerNet

devices = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU'))]
on_each_device = pytest.mark.parametrize('device', devices)
NONE = dict(degrees=0, scale=0, shear=0, shift=0, elastic=0)

wrong_answers = ['my_pixel = .45', 'my_place = [10, 7]',
                 'def my_thicker(images, share): return (1 - share)*images + share*shifted(images, 1, 0)',
                 'def my_turn(images, degrees): return broken_turn(images, degrees)', 'my_degrees = 20']


def digits(n=50, device='cpu'):
    "n random images with their labels."
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 784, generator=g).to(device), torch.randint(10, (n,), generator=g).to(device)


def generator(seed=0): return torch.Generator().manual_seed(seed)


def dot(row, column):
    "An image with a single pixel of ink."
    image = torch.zeros(1, 784)
    image[0, 28*row + column] = 1
    return image


def ink(images):
    "The (row, column) of each pixel of the first image that isn't paper, with its value."
    image = images[0].view(28, 28)
    return {(r, c): round(image[r, c].item(), 3) for r, c in (image > 1e-3).nonzero().tolist()}


def affine(n=1, **change):
    "`affine_weights` that do nothing but what is named."
    amounts = dict(turn=0, slant=0, width=1, height=1, left=0, up=0) | change
    return affine_weights(*[torch.full((n,), float(value)) for value in amounts.values()])


def moved(image, **change): return ink(distort_by(image, affine(**change), basis_fields()[:3]))


# A shift by whole pixels.

@pytest.mark.parametrize('right, down, row, column', [(0, 0, 10, 20), (1, 0, 10, 21), (-3, 0, 10, 17), (0, 1, 11, 20), (0, -2, 8, 20),
                                                      (5, -4, 6, 25), (-20, 17, 27, 0)])
def test_a_shift_to_the_right_and_down(right, down, row, column):
    image = dot(10, 20)
    assert ink(shifted(image, right, down)) == {(row, column): 1.} and ink(image) == {(10, 20): 1.}


@pytest.mark.parametrize('right, down', [(3, 0), (-3, 0), (0, 2), (0, -2), (4, -5), (28, 0), (0, -28)])
def test_a_shift_brings_in_paper_and_no_pixel_from_the_other_side(right, down):
    x, _ = digits(3)
    before, old, new = x.clone(), x.view(3, 28, 28) + 1, torch.zeros(3, 28, 28)
    for r, c in product(range(28), range(28)):
        if 0 <= r - down < 28 and 0 <= c - right < 28: new[:, r, c] = old[:, r - down, c - right]
    found = shifted(x + 1, right, down)
    assert found.shape == (3, 784) and torch.equal(found.view(3, 28, 28), new) and torch.equal(x, before)


@on_each_device
def test_a_shift_keeps_dtype_and_device_and_takes_no_image_and_one(device):
    for n, dtype in product((0, 1, 2), (torch.float32, torch.float64, torch.uint8)):
        found = shifted(torch.ones(n, 784, dtype=dtype, device=device), 1, 1)
        assert (found.shape, found.dtype, found.device.type, found.sum().item()) == ((n, 784), dtype, device, n*27*27)


# Which way is positive. The middle of the image lies between pixels, at row 13.5 and column 13.5.

@pytest.mark.parametrize('change, row, column', [
    (dict(), 10, 20),
    (dict(left=1), 10, 19), (dict(left=-3), 10, 23), (dict(up=1), 9, 20), (dict(up=-2), 12, 20),
    (dict(turn=90), 7, 10),            # 6.5 right and 3.5 up of the middle: 3.5 left and 6.5 up
    (dict(turn=-90), 20, 17), (dict(turn=180), 17, 7),
    (dict(slant=1), 10, 23.5),         # 3.5 up, so 3.5 to the right
    (dict(slant=-2), 10, 13)])
def test_a_dot_is_moved_by_just_so_much(change, row, column):
    shares = {(row, math.floor(column)): 1 - column%1, (row, math.ceil(column)): column%1 or 1.}
    assert moved(dot(10, 20), **change) == shares


def test_a_slant_moves_what_is_below_the_middle_to_the_other_side():
    assert moved(dot(17, 20), slant=2) == {(17, 13): 1.}


@pytest.mark.parametrize('change, row, column', [
    (dict(width=3), 14, 15), (dict(height=3), 15, 14), (dict(width=3, height=3), 15, 15),     # half a pixel becomes 1.5
    (dict(turn=90, width=3), 13, 15), (dict(turn=90, height=3), 12, 14)])
def test_an_image_grows_from_its_middle_and_after_it_has_turned(change, row, column):
    # the dot is half a pixel right of and below the middle; turned, it is half a pixel right of and above it
    assert moved(dot(14, 14), **change)[row, column] == 1


def test_an_image_shrinks_into_its_middle():
    assert moved(dot(15, 15), width=1/3, height=1/3) == {(14, 14): 1.}


def test_half_a_pixel_is_shared_by_the_four_around():
    assert moved(dot(10, 20), left=.25, up=.5) == {(10, 20): .375, (9, 20): .375, (10, 19): .125, (9, 19): .125}


def test_what_leaves_the_image_is_gone_and_what_comes_in_is_paper():
    assert moved(dot(10, 0), left=1) == {} and moved(dot(10, 27), left=-1) == {}
    assert moved(torch.ones(1, 784), up=27) == {(0, c): 1. for c in range(28)}


def test_each_image_has_its_own_map():
    weights = torch.cat([affine(left=1), affine(up=2)])
    first, second = distort_by(dot(10, 20).expand(2, 784), weights, basis_fields()[:3]).split(1)
    assert ink(first) == {(10, 19): 1.} and ink(second) == {(8, 20): 1.}


def test_six_weights_by_hand():
    # turned by 30 degrees: cos is √3/2 and sin 1/2; a pixel is 1/14
    weights = affine(turn=30, slant=.3, width=2, height=.5, left=7, up=-14)
    assert_close(weights, tensor([[[3**.5/4, .3 - 1, .5], [1/4, 3**.5, -1]]]))


# The fields.

def test_the_first_three_fields_are_across_down_and_1():
    across, down, one = basis_fields()[:3].view(3, 28, 28)
    for r, c in ((0, 0), (0, 27), (13, 14), (27, 3)):
        assert across[r, c] == pytest.approx((2*c - 27)/28, abs=1e-6) and down[r, c] == pytest.approx((2*r - 27)/28, abs=1e-6)
    assert (one == 1).all()


@pytest.mark.parametrize('smooth', [4., 2.5])
def test_the_other_81_are_bells_around_every_fourth_pixel(smooth):
    curves = [[math.exp(-((i - middle)/smooth)**2/2) for middle in range(-2, 31, 4)] for i in range(28)]
    curves = [[height/math.hypot(*heights) for height in heights] for heights in curves]
    fields = basis_fields(smooth)
    assert fields.shape == (84, 784)
    for j, k, r, c in ((0, 0, 0, 0), (4, 4, 14, 14), (2, 7, 5, 20), (8, 0, 27, 1), (3, 3, 10, 12)):
        assert fields[3 + 9*j + k, 28*r + c] == pytest.approx(curves[r][j]*curves[c][k], rel=1e-4)
    assert_close(fields[3:].square().sum(0), torch.ones(784))           # variances add: the same spread everywhere


def test_the_default_bells_are_4_pixels_wide():
    assert torch.equal(basis_fields(), basis_fields(4.)) and torch.equal(Distort().fields[torch.device('cpu')], basis_fields(4.))


# Looked up pixel by pixel, as the chapter does in loops.

def looked_up(image, row, column):
    "Four pixels, mixed; paper outside."
    total, top, left = 0., math.floor(row), math.floor(column)
    for r, c in product((top, top + 1), (left, left + 1)):
        if 0 <= r < 28 and 0 <= c < 28: total += (1 - abs(row - r))*(1 - abs(column - c))*image[r][c]
    return total


def test_a_distortion_with_everything_in_it_pixel_by_pixel():
    images, _ = digits(3)
    amounts = dict(degrees=30, scale=.3, shear=.3, shift=4, elastic=1.5)
    weights, fields = random_weights(3, amounts, generator(1)).tolist(), basis_fields(3).tolist()
    slow = torch.zeros(3, 784)
    for n, p in product(range(3), range(0, 784, 5)):
        across, down = [sum(w*field[p] for w, field in zip(row, fields)) for row in weights[n]]
        slow[n, p] = looked_up(images[n].view(28, 28).tolist(), 14*(down + 1) - .5, 14*(across + 1) - .5)
    fast = Distort(**amounts, smooth=3, generator=generator(1))(images)
    assert_close(fast[:, ::5], slow[:, ::5], atol=1e-4, rtol=0)


def test_the_affine_part_is_torchs_affine_grid():
    weights = random_weights(20, dict(degrees=30, scale=.3, shear=.3, shift=4, elastic=0))
    theirs = F.affine_grid(weights[:, :, :3], (20, 1, 28, 28), align_corners=False)
    ours = (weights[:, :, :3].reshape(-1, 3)@basis_fields()[:3]).view(20, 2, 28, 28).permute(0, 2, 3, 1)
    assert_close(ours, theirs, atol=1e-5, rtol=0)


# What is drawn.

def test_the_amounts_that_nobody_names():
    assert Distort().amounts == dict(degrees=10, scale=.1, shear=.1, shift=1, elastic=.8, smooth=4)


@pytest.mark.parametrize('name, amount, measure, low, high', [
    ('degrees', 30, lambda w: torch.atan2(w[:, 1, 0], w[:, 0, 0]).rad2deg(), -30, 30),
    ('shear', .5, lambda w: w[:, 0, 1], -.5, .5), ('scale', .4, lambda w: 1/w[:, 0, 0], .6, 1.4),
    ('scale', .4, lambda w: 1/w[:, 1, 1], .6, 1.4), ('shift', 3, lambda w: 14*w[:, 0, 2], -3, 3),
    ('shift', 3, lambda w: 14*w[:, 1, 2], -3, 3)])
def test_an_amount_is_drawn_evenly_between_its_ends(name, amount, measure, low, high):
    weights = random_weights(5000, NONE | {name: amount}, generator())
    drawn = measure(weights)
    width = high - low
    assert low <= drawn.min() < low + .01*width and high - .01*width < drawn.max() <= high
    for quarter in (.25, .5, .75): assert drawn.quantile(quarter).item() == pytest.approx(low + quarter*width, abs=.03*width)
    assert not weights[:, :, 3:].any()


def test_across_and_down_are_drawn_apart():
    weights = random_weights(5000, NONE | dict(scale=.4, shift=3), generator())
    for pair in ((weights[:, 0, 0], weights[:, 1, 1]), (weights[:, 0, 2], weights[:, 1, 2])):
        assert torch.corrcoef(torch.stack(pair))[0, 1].abs() < .05


def test_what_was_drawn_goes_where_it_belongs(monkeypatch):
    drawn = iter([.5, .5, 1., .5, .75, 0.])        # of degrees, shear, twice scale and twice shift: a half is none
    monkeypatch.setattr(torch, 'rand', lambda n, generator: torch.full((n,), next(drawn)))
    amounts = dict(degrees=40, scale=.5, shear=.7, shift=6, elastic=0)
    assert_close(random_weights(1, amounts)[:, :, :3], affine(width=1.5, left=3, up=-6))          # half as wide again, half the shift, all of it down
    drawn = iter([1., 0., .5, 0., .5, .5])
    assert_close(random_weights(1, amounts)[:, :, :3], affine(turn=40, slant=-.7, height=.5))


def test_the_elastic_displacement_has_its_standard_deviation_at_every_pixel():
    pixels = 14*random_weights(4000, NONE | dict(elastic=1.5), generator())[:, :, 3:]@basis_fields()[3:]      # (4000, 2, 784)
    assert (pixels.std(0) - 1.5).abs().max() < .1 and pixels.mean(0).abs().max() < .15
    across, down = pixels.unbind(1)
    assert torch.corrcoef(torch.stack([across[:, 400], down[:, 400]]))[0, 1].abs() < .05


def test_no_amount_changes_nothing():
    x, _ = digits()
    assert_close(Distort(**NONE)(x), x, atol=1e-4, rtol=0)


def test_a_generator_repeats_itself_and_leaves_torchs_own_alone():
    x, _ = digits()
    torch.manual_seed(0)
    first, again, other = (Distort(generator=generator(seed))(x) for seed in (7, 7, 8))
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(first, again) and not torch.equal(first, other) and torch.equal(torch.rand(1), after)
    torch.manual_seed(7)
    assert torch.equal(Distort()(x), first)


def test_the_generator_goes_on_from_batch_to_batch():
    x, _ = digits(1)
    distort = Distort(generator=generator())
    assert not torch.equal(distort(x), distort(x))


def test_each_image_is_distorted_in_its_own_way():
    out = Distort()(digits(1)[0].expand(5, 784))
    assert all(not torch.equal(out[i], out[j]) for i in range(5) for j in range(i))


# Which images it takes, and how it returns them.

@on_each_device
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_the_same_on_every_device_and_in_both_dtypes(device, dtype):
    x, _ = digits(20)
    expected = Distort(generator=generator())(x)
    distort = Distort(generator=generator())
    found = distort(x.to(device, dtype))
    assert (found.dtype, found.device.type, found.shape) == (dtype, device, x.shape)
    assert_close(found.cpu().float(), expected, atol=1e-3, rtol=0)
    assert distort.fields[torch.device('cpu')].device.type == 'cpu'       # another thread may be using it


def test_float64_images_are_mixed_in_float64():
    x = digits(5)[0].double()
    exactly = distort_by(x, affine(5, left=1, up=1), basis_fields()[:3]).view(-1, 28, 28)
    expected = x.view(-1, 28, 28)[:, 1:, 1:]
    assert exactly.dtype == torch.float64 and (exactly[:, :-1, :-1] - expected).abs().max() < 1e-5


@on_each_device
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_does_not_make_the_places_coarse(device, dtype):
    x, _ = digits(20, device)
    distort = Distort(**NONE)
    assert distort(x.to(dtype)).dtype == dtype
    with torch.autocast(device, torch.bfloat16): out = distort(x)
    assert out.dtype == torch.float32
    assert_close(out, x, atol=1e-4, rtol=0)
    assert_close(distort(x.to(dtype)).float(), x.to(dtype).float(), atol=1e-2, rtol=0)


@pytest.mark.parametrize('rows', [slice(0), slice(1), slice(None, None, 3)])
def test_no_image_one_image_and_every_third(rows):
    x = digits(10)[0]
    before, out = x.clone(), Distort(generator=generator())(x[rows])
    assert out.shape == x[rows].shape and torch.equal(x, before)
    assert torch.equal(out, Distort(generator=generator())(x[rows].clone()))


def test_images_that_do_not_lie_in_one_piece():
    x = digits(10)[0]
    for scattered in (x.T.contiguous().T, torch.cat([x, x], 1)[:, :784]):
        assert torch.equal(Distort(generator=generator())(scattered), Distort(generator=generator())(x))


def test_pixels_stay_in_their_range_and_no_gradients_are_recorded():
    x = digits(200)[0]
    out = Distort(45, .5, .5, 5, 3, 1, generator())(x.requires_grad_())
    assert out.min() >= 0 and out.max() <= 1 + 1e-6 and out.isfinite().all() and not out.requires_grad


# What it refuses.

@pytest.mark.parametrize('name', ['degrees', 'scale', 'shear', 'shift', 'elastic', 'smooth'])
@pytest.mark.parametrize('value', [-1, float('nan'), float('inf')])
def test_amounts_that_make_no_sense(name, value):
    with pytest.raises(ValueError, match=f'{name} is .*expected'): Distort(**{name: value})


def test_where_the_amounts_end():
    with pytest.raises(ValueError, match='scale is 1; expected from 0 to below 1'): Distort(scale=1)
    with pytest.raises(ValueError, match=r'smooth is 0\.9; expected at least 1 pixel'): Distort(smooth=.9)
    assert Distort(degrees=1e3, scale=.99, shear=10, shift=100, elastic=50, smooth=1)(digits(3)[0]).isfinite().all()


@pytest.mark.parametrize('images, kind, said', [
    (torch.zeros(2, 28, 28), ValueError, r'xb has the shape \(2, 28, 28\); expected \(n, 784\)'),
    (torch.zeros(784), ValueError, r'xb has the shape \(784,\)'), (torch.zeros(2, 64), ValueError, r'shape \(2, 64\)'),
    (torch.zeros(2, 784).byte(), TypeError, r'xb is torch\.uint8; expected floating point'),
    ([[0.]*784], TypeError, 'xb is a list')])
def test_what_is_no_image(images, kind, said):
    if isinstance(images, torch.Tensor):
        with pytest.raises(kind, match=said): Distort()(images)
    with pytest.raises(kind, match=said): distort_by(images, affine(2), basis_fields()[:3])


# The recipe.

def parameters(net): return torch.cat([p.detach().flatten() for p in net.parameters()])


@on_each_device
@pytest.mark.parametrize('augment', [None, Distort()])
def test_the_recipe_is_what_torchs_own_loop_and_optimizer_make_of_it(device, augment):
    x, y = digits(300, device)
    net, history = train_well(x, y, 2, seed=3, hidden=20, augment=augment)
    theirs = nn.Sequential(nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 10)).to(device)
    torch.manual_seed(3)
    start = TwoLayerNet(20)
    with torch.no_grad():
        for layer, weight, bias in ((theirs[0], start.w1, start.b1), (theirs[2], start.w2, start.b2)):
            layer.weight.copy_(weight.T)
            layer.bias.copy_(bias)
    opt = torch.optim.SGD(theirs.parameters(), .4, .9, weight_decay=3e-5, nesterov=True)
    rate = one_cycle(.4, 4)                                          # 2 epochs of 2 batches
    for step in range(4):
        if step%2 == 0: order = torch.randperm(300).to(device)
        rows = order[256*(step%2):256*(step%2 + 1)]
        xb = augment(x[rows]) if augment else x[rows]
        opt.param_groups[0]['lr'] = rate(step)
        F.cross_entropy(theirs(xb), y[rows]).backward()
        opt.step()
        opt.zero_grad()
    for ours, their in ((net.w1, theirs[0].weight.T), (net.b1, theirs[0].bias), (net.w2, theirs[2].weight.T), (net.b2, theirs[2].bias)):
        assert_close(ours, their, atol=1e-5, rtol=1e-4)
    assert len(history) == 2 and not net.training and net.w1.device.type == device


def test_what_the_recipe_does_where_nothing_is_said(monkeypatch):
    rates, seen = [], []
    def cycle(lr, n_steps):
        rates.append((lr, n_steps))
        return one_cycle(lr, n_steps)
    def fit(net, dl, valid_dl, opt, epochs, **options):
        seen.append((net.config['hidden'], net.config['dropout'], epochs, valid_dl, type(options['augment']), options['augment'].amounts))
    monkeypatch.setattr('mnist_foundations.distortion.one_cycle', cycle)
    monkeypatch.setattr('mnist_foundations.distortion.fit', fit)
    train_well(*digits(300))
    assert rates == [(.4, 160)] and seen == [(500, 0., 80, None, Distort, Distort().amounts)]


def test_a_seed_is_a_net_and_nobody_s_is_seed_0():
    x, y = digits(100)
    a, b, c, d = (parameters(train_well(x, y, 1, hidden=5, **seed)[0]) for seed in (dict(), dict(seed=0), dict(seed=0), dict(seed=1)))
    assert torch.equal(a, b) and torch.equal(b, c) and not torch.equal(c, d)


def test_labels_and_one_hot_rows_make_the_same_net():
    x, y = digits(100)
    a, b = (train_well(x, targets, 1, hidden=5)[0] for targets in (y, one_hot(y)))
    assert torch.equal(parameters(a), parameters(b))
    few = train_well(x, y%3, 1, hidden=5)[0]                     # of ten digits only three are there
    assert few.w2.shape == (5, 10) and train_well(x, one_hot(y%3, 3), 1, hidden=5)[0].w2.shape == (5, 3)


def test_a_run_that_goes_on_from_its_checkpoint_is_the_run_that_was_begun(tmp_path):
    x, y = digits(100)
    run = dict(epochs=2, seed=1, hidden=5, checkpoint=tmp_path/'run')
    straight = parameters(train_well(x, y, **run | dict(checkpoint=None))[0])
    assert torch.equal(parameters(train_well(x, y, **run)[0]), straight)
    net, history = train_well(x, y, **run)                          # all is done: read from the file
    assert torch.equal(parameters(net), straight) and len(history) == 2
    others = [dict(epochs=1), dict(epochs=3), dict(seed=2), dict(lr=.1), dict(hidden=6), dict(dropout=.5), dict(augment=None),
              dict(augment=Distort(degrees=5)), dict(augment=Distort(smooth=3))]
    for other in others:
        with pytest.raises(ValueError): train_well(x, y, **run | other)
    with pytest.raises(ValueError): train_well(x, (y + 1)%10, **run)
    with pytest.raises(ValueError): train_well(x.flip(1), y, **run)


def test_a_run_that_was_cut_goes_on_from_its_last_epoch(tmp_path, monkeypatch):
    x, y = digits(100)
    run = dict(epochs=3, hidden=5)
    straight = parameters(train_well(x, y, **run)[0])
    calls = iter([distort_by, distort_by])
    def cut(*what):
        function = next(calls, None)
        if function is None: raise KeyboardInterrupt                 # in the third epoch, of one batch each
        return function(*what)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr('mnist_foundations.distortion.distort_by', cut)
        train_well(x, y, **run, checkpoint=tmp_path/'run')
    net, history = train_well(x, y, **run, checkpoint=tmp_path/'run')
    assert torch.equal(parameters(net), straight) and len(history) == 3


def test_dropout_drops():
    x, y = digits(100)
    plain, dropped = (train_well(x, y, 1, hidden=5, augment=None, dropout=p)[0] for p in (0., .5))
    assert dropped.config['dropout'] == .5 and not torch.equal(parameters(plain), parameters(dropped))


# The test images by their numbers.

def fake(folder, names):
    "A folder of test images, empty files, by digit."
    for digit in range(10): (folder/'testing'/str(digit)).mkdir(parents=True)
    for digit, name in names: (folder/'testing'/str(digit)/f'{name}.png').touch()
    return folder


def test_test_images_are_numbered_by_their_names(tmp_path):
    path = fake(tmp_path, [(0, '10'), (0, '7'), (3, '60003'), (3, 'three'), (9, '00012')])
    assert image_numbers(path) == [10, 7, 3, -1, 12]                     # by digit, then by name
    assert not doubtful_labels(path).any() and len(doubtful_labels(path)) == 5


def test_fifteen_labels_of_the_whole_test_set_are_in_doubt(tmp_path):
    path = fake(tmp_path, [(number % 10, number) for number in range(10_000)])
    in_doubt, numbers = doubtful_labels(path), image_numbers(path)
    doubted = sorted(number for number, doubt in zip(numbers, in_doubt) if doubt)
    assert doubted == [947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729]


# The long experiments.

def test_every_reported_step_was_trained_at_the_rate_that_another_seed_chose():
    for name, case in (('staircase', ['step']), ('distortion_amounts', ['kind', 'amount'])):
        rows = recorded_rows(name)
        for of, report in rows[(rows.purpose == 'report') & (rows.epochs < 80)].groupby(case):
            search = rows[(rows.purpose == 'search') & (rows[case].eq(list(of)).all(axis=1))].sort_values('lr')
            best = search[search.valid_accuracy == search.valid_accuracy.max()].lr
            assert report.lr.isin(best).all() and report.lr.nunique() == 1 and sorted(report.seed) == [0, 1, 2]
            assert set(search.seed) == {3} and search.lr.iloc[-1] > report.lr.max()      # with a worse one above it
            assert name == 'distortion_amounts' or search.lr.iloc[0] < report.lr.min()


@needs_all
@takes_minutes
def test_the_recipe_reads_more_than_992_of_1000_test_images():
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    (x, y), (x_test, y_test) = (load_mnist(mnist_path(SHARED), split, device=device) for split in ('training', 'testing'))
    began = time.perf_counter()
    net, _ = train_well(x, y)
    seconds = time.perf_counter() - began
    accuracy = validate_epoch(net, BatchLoader(x_test, y_test, 1000))
    print(f'\nthe recipe of chapter 10: {accuracy:.4f} in {seconds:.0f} seconds')
    assert accuracy >= .992


@needs_all
@pytest.mark.parametrize('name', ['staircase', 'distortion_amounts'])
def test_short_rows_come_out_again(name):
    split, steps = piles(), {step: settings for step, settings, _ in script('staircase').steps()}
    for row in recorded_rows(name).query("purpose == 'short'").itertuples():
        what = (row.step, steps[row.step]) if name == 'staircase' else (row.kind, row.amount)
        check_again(script(name).one_run(split, 'short', *what, row.lr, row.seed, row.epochs), row)
