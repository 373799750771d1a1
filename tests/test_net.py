"Chapter 03: the net, its accuracy and its loss against numbers worked by hand and against PyTorch; bad input; the grid."
import math, subprocess, sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn, tensor
from torch.testing import assert_close

from long_experiments import check_again, needs_all, piles, recorded_rows, script
from mnist_foundations.data import BatchLoader, one_hot
from mnist_foundations.linear import init_params, mnist_loss, train_epoch
from mnist_foundations.net import batch_accuracy, simple_net, softmax_cross_entropy, validate_epoch

devices = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU'))]
on_each_device = pytest.mark.parametrize('device', devices)

wrong_answers = ['my_four = [0, 0, 1, 0]', 'my_losses = [26, 1/26]',
                 'def my_slope(scores, labels): return scores.softmax(1) - one_hot(labels, scores.shape[1])',
                 'def my_epoch(params, dl, lr): return broken_epoch(params, dl, lr)',
                 'my_b1, my_digit = torch.full((500,), -1000.), (net[3].argmax().item() + 1)%10']


def digits(n=50, device='cpu'):
    "n random images with one-hot targets."
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 784, generator=g).to(device), one_hot(torch.randint(10, (n,), generator=g)).to(device)


def net(device='cpu'):
    torch.manual_seed(0)
    return [init_params(s, .05, device) for s in ((784, 20), 20, (20, 10), 10)]


def net_of(params): return lambda xb: simple_net(xb, *params)


# The net.

def test_a_net_by_hand():
    x = tensor([[1., .5], [0., 0.]])
    w1, b1 = tensor([[2., -1.], [-2., 4.]]), tensor([0., -2.])
    w2, b2 = tensor([[3., -1.], [1., 2.]]), tensor([0., .5])
    # first image: sums 1 and -1, of which the ReLU leaves 1 and 0; second: the biases alone, 0 and -2, leave nothing
    assert torch.equal(simple_net(x, w1, b1, w2, b2), tensor([[3., -.5], [0., .5]]))


def test_a_unit_that_is_cut_off_gets_no_gradient():
    params = [p.requires_grad_() for p in (tensor([[2., -1.], [-2., 4.]]), tensor([0., -2.]),
                                           tensor([[3., -1.], [1., 2.]]), tensor([0., .5]))]
    simple_net(tensor([[1., .5]]), *params)[0, 0].backward()          # 3 times the first unit, once the second
    w1, b1, w2, b2 = [p.grad for p in params]
    assert torch.equal(w1, tensor([[3., 0.], [1.5, 0.]])) and torch.equal(b1, tensor([3., 0.]))
    assert torch.equal(w2, tensor([[1., 0.], [0., 0.]])) and torch.equal(b2, tensor([1., 0.]))


def test_gradients_in_float64():
    params = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((6, 4), 4, (4, 3), 3)]
    x = torch.rand(5, 6, dtype=torch.float64)
    t = one_hot(tensor([0, 1, 2, 1, 0]), 3).double()
    for loss in (mnist_loss, softmax_cross_entropy):
        assert torch.autograd.gradcheck(lambda *ps: loss(simple_net(x, *ps), t), params)


@pytest.mark.parametrize('shapes, named', [
    (((784,), (784, 20), (20,), (20, 10), (10,)), r'xb has the shape \(784,\)'),
    (((2, 783), (784, 20), (20,), (20, 10), (10,)), r'w1 \(784, 20\)'),
    (((2, 784), (784, 20), (21,), (20, 10), (10,)), r'b1 has the shape \(21,\)'),
    (((2, 784), (784, 20), (20,), (21, 10), (10,)), r'w2 \(21, 10\)'),
    (((2, 784), (784, 20), (20,), (20, 10), (2, 10)), r'b2 has the shape \(2, 10\)')])
def test_layers_that_do_not_fit(shapes, named):
    with pytest.raises(ValueError, match=named): simple_net(*map(torch.zeros, shapes))


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int64])
def test_integer_images(dtype):
    with pytest.raises(TypeError, match=f'{dtype}; expected floating point'):
        simple_net(torch.zeros(2, 784, dtype=dtype), *net())


# Accuracy.

def test_accuracy_by_hand():
    scores = tensor([[.1, .9, 0.], [2., 1., 1.], [0., 0., 5.]])       # answers 1, 0 and 2
    for y in (tensor([1, 2, 2]), tensor([1, 2, 2], dtype=torch.int32), np.array([1, 2, 2]), one_hot([1, 2, 2], 3),
              one_hot([1, 2, 2], 3).bool(), one_hot([1, 2, 2], 3).int()):
        assert batch_accuracy(scores, y) == pytest.approx(2/3)
    assert batch_accuracy(scores[:1], tensor([1])) == 1


@pytest.mark.parametrize('target', [tensor([1., 1., 0.]), tensor([1, 1, 0]), tensor([True, True, False])])
def test_one_column_as_column_or_row(target):
    z = tensor([2., -1., 0.])
    assert batch_accuracy(z, target) == batch_accuracy(z[:, None], target[:, None]) == pytest.approx(2/3)


@pytest.mark.parametrize('predicted, targets', [((4, 1), (4,)), ((4,), (4, 1)), ((4, 10), (4, 1)), ((4, 10), (3, 10)),
                                                ((4, 10), (4, 9)), ((4, 10), (3,))])
def test_shapes_that_would_broadcast(predicted, targets):
    with pytest.raises(ValueError, match='expected'): batch_accuracy(torch.zeros(predicted), torch.zeros(targets).long())


@pytest.mark.parametrize('bad', [2., -1., .5, float('nan')])
def test_targets_outside_0_and_1(bad):
    with pytest.raises(ValueError, match='expected only 0 and 1'): batch_accuracy(torch.zeros(2, 1), tensor([[1.], [bad]]))


def test_a_net_whose_scores_are_nan_has_no_accuracy():
    for scores, targets in ((tensor([[0., float('nan')]]), tensor([0])), (tensor([float('nan')]), tensor([1.]))):
        with pytest.raises(ValueError, match='predictions hold 1 nan'): batch_accuracy(scores, targets)


@pytest.mark.parametrize('func', [batch_accuracy, softmax_cross_entropy])
@pytest.mark.parametrize('targets', [torch.zeros(0, 10), torch.zeros(0).long()])
def test_empty_batch(func, targets):
    with pytest.raises(ValueError, match='the batch is empty'): func(torch.zeros(0, 10), targets)


@pytest.mark.parametrize('func', [batch_accuracy, softmax_cross_entropy])
@pytest.mark.parametrize('targets', [torch.ones(3, 2), torch.zeros(3, 2), tensor([0, 1, 2]), tensor([0, -1, 1]),
                                     tensor([0., 1, 1]), tensor([0, 1])])
def test_targets_that_are_neither_one_hot_nor_labels_that_fit(func, targets):
    with pytest.raises(ValueError, match=r'targets are .* expected one-hot rows \(3, 2\), or integer labels \(3,\) from 0 to 1'):
        func(torch.zeros(3, 2), targets)


def test_rows_that_share_a_1_are_targets_of_the_loss_only():
    scores, shares = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), tensor([[.2, .3, .5]]*4)
    for s in (0., .1):
        assert_close(softmax_cross_entropy(scores, shares, s), F.cross_entropy(scores, shares, label_smoothing=s))
        assert_close(softmax_cross_entropy(scores.half(), shares, s), F.cross_entropy(scores.half().float(), shares, label_smoothing=s))
    assert softmax_cross_entropy(scores.double(), shares).dtype == torch.float64
    with pytest.raises(ValueError, match='expected one-hot rows'): batch_accuracy(scores, shares)
    for wrong in ([.2, .3, .6], [1.2, -.1, -.1]):
        with pytest.raises(ValueError, match='do not add up to 1'): softmax_cross_entropy(scores, tensor([wrong]*4))


# A whole epoch of validation.

def given_batches(*sizes):
    "Batches of zeros, of these sizes."
    return [(torch.zeros(n, 1), torch.zeros(n, 1)) for n in sizes]


def test_uneven_batches_by_hand():
    means = iter([.5, 1., 0.])
    # (4*0.5 + 2*1 + 1*0)/7
    assert validate_epoch(lambda xb: xb, given_batches(4, 2, 1), lambda p, t: next(means)) == pytest.approx(4/7)


@on_each_device
@pytest.mark.parametrize('batch_size', [1, 7, 49, 50, 99])
def test_validation_does_not_depend_on_the_batches(batch_size, device):
    params, (x, t) = net(device), digits(device=device)
    whole = (simple_net(x, *params).argmax(1) == t.argmax(1)).double().mean().item()
    assert validate_epoch(net_of(params), BatchLoader(x, t, batch_size)) == pytest.approx(whole, abs=1e-6)
    labels = BatchLoader(x, t.argmax(1), batch_size)
    assert validate_epoch(net_of(params), labels) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_a_metric_of_any_dtype_is_added_up_exactly(dtype):
    assert validate_epoch(lambda xb: xb, given_batches(*[64]*1000), lambda p, t: torch.ones((), dtype=dtype)) == 1


def test_a_module_is_measured_in_eval_mode_and_each_part_gets_its_mode_back():
    model = nn.Sequential(nn.BatchNorm1d(784), nn.Dropout(.5), nn.Linear(784, 10))
    model[0].eval()                                                     # a layer that its owner froze
    x, t = digits()
    seen = []
    def metric(p, t):
        seen.append([m.training for m in model.modules()])
        return 0.
    validate_epoch(model, BatchLoader(x, t, 20), metric)
    assert not any(sum(seen, [])) and [m.training for m in model] == [False, True, True] and model.training
    assert torch.equal(model[0].running_mean, torch.zeros(784))
    model[0].train()
    before = model[0].running_mean.clone()
    validate_epoch(model, BatchLoader(x, t, 20))
    assert torch.equal(model[0].running_mean, before)


def test_modes_come_back_after_an_error_too():
    model = nn.Sequential(nn.Dropout(.5), nn.Linear(784, 10))
    with pytest.raises(ValueError, match='expected'): validate_epoch(model, [(torch.zeros(2, 784), torch.zeros(3, 10))])
    assert model.training and model[0].training


def test_no_gradients_are_recorded():
    params = net()
    def metric(p, t):
        assert not p.requires_grad
        return batch_accuracy(p, t)
    validate_epoch(net_of(params), BatchLoader(*digits(), 20), metric)


def test_no_batches():
    with pytest.raises(ValueError, match='valid_dl has no batches'): validate_epoch(lambda xb: xb, [])


# Softmax cross-entropy.

log_scores = tensor([1., 2., 5.]).log()              # e to these is 1, 2 and 5, so the shares are 1/8, 2/8 and 5/8

@pytest.mark.parametrize('right, loss, slopes', [(0, math.log(8), [-7/8, 2/8, 5/8]), (1, math.log(4), [1/8, -6/8, 5/8]),
                                                 (2, math.log(8/5), [1/8, 2/8, -3/8])])
def test_three_scores_by_hand(right, loss, slopes):
    z = log_scores.clone()[None].requires_grad_()
    found = softmax_cross_entropy(z, tensor([right]))
    found.backward()
    assert found.item() == pytest.approx(loss, rel=1e-6) and z.grad[0].tolist() == pytest.approx(slopes, abs=1e-6)


def test_the_mean_of_two_rows_and_its_gradient_by_hand():
    z = log_scores.repeat(2, 1).requires_grad_()
    found = softmax_cross_entropy(z, tensor([0, 1]))
    found.backward()
    assert found.item() == pytest.approx((math.log(8) + math.log(4))/2, rel=1e-6)
    assert z.grad[1].tolist() == pytest.approx([1/16, -6/16, 5/16], abs=1e-6)


def test_smoothing_by_hand():
    # the right column keeps 0.7, and each of the three gets 0.1
    expected = .8*math.log(8) + .1*math.log(4) + .1*math.log(8/5)
    assert softmax_cross_entropy(log_scores[None], tensor([0]), .3).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize('n_classes', [2, 10, 26])
def test_the_first_loss_is_the_logarithm_of_the_number_of_classes(n_classes):
    assert softmax_cross_entropy(torch.zeros(3, n_classes), tensor([0, 1, 1])).item() == pytest.approx(math.log(n_classes))


def test_all_ways_to_say_what_is_right_mean_the_same():
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    labels = tensor([2, 0, 1, 1])
    expected = softmax_cross_entropy(z, labels, .1)
    for same in (labels.int(), labels.to(torch.uint8), labels.numpy(), one_hot(labels, 3), one_hot(labels, 3).double(),
                 one_hot(labels, 3).int(), one_hot(labels, 3).bool()):
        assert softmax_cross_entropy(z, same, .1) == expected


def test_scores_of_10_000():
    z = tensor([[1e4, -1e4], [-1e4, 1e4]]).requires_grad_()
    loss = softmax_cross_entropy(z, tensor([0, 0]))                   # 0 for the first row, 20,000 for the second
    loss.backward()
    assert loss == 10_000 and z.grad.tolist() == [[0, 0], [-.5, .5]]


@pytest.mark.parametrize('offset', [0, 1e4, 1e6, -1e6])
def test_a_common_offset_changes_nothing(offset):
    scores, t = tensor([[0., 1], [3, 1]]) + offset, torch.eye(2)
    torch.testing.assert_close(softmax_cross_entropy(scores, t), F.cross_entropy(scores.double(), t.double()).float(),
                               rtol=1e-6, atol=0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    z = torch.randn(50, 10, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    y = torch.arange(50) % 10
    loss = softmax_cross_entropy(z, y)
    loss.backward()
    assert loss.dtype == torch.float32 and loss == softmax_cross_entropy(z.float(), y) and z.grad.dtype == dtype
    assert softmax_cross_entropy(z.double(), y).dtype == torch.float64


@on_each_device
@pytest.mark.parametrize('size', [1, 100, 1e4])
@pytest.mark.parametrize('smoothing', [0, .1])
def test_cross_entropy_and_its_gradient_are_torchs(device, size, smoothing):
    torch.manual_seed(0)
    _, t = digits(30, device)
    ours = (torch.randn(30, 10)*size).to(device).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    a, b = softmax_cross_entropy(ours, t, smoothing), F.cross_entropy(theirs, t, label_smoothing=smoothing)
    a.backward()
    b.backward()
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('t', [torch.ones(3, 1), torch.ones(3), torch.zeros(3).long()])
def test_a_single_column_is_no_choice(t):
    scores = torch.zeros(3) if t.is_floating_point() and t.ndim == 1 else torch.zeros(3, 1)
    with pytest.raises(ValueError, match='expected'): softmax_cross_entropy(scores, t)


@pytest.mark.parametrize('smoothing', [-.1, 1, float('nan')])
def test_smoothing_outside_0_to_1(smoothing):
    with pytest.raises(ValueError, match='smoothing is'): softmax_cross_entropy(torch.zeros(1, 2), torch.eye(2)[:1], smoothing)


# Starts, and the grid that compares them.

@pytest.mark.parametrize('start, stds', [('std 1', (1, 1, 1, 1)), ('scaled', (.0505, 0, .0632, 0))])   # √(2/784), √(2/500)
def test_the_spread_of_each_start(start, stds):
    params = script('grid').start_params(start, seed=0)
    assert [tuple(p.shape) for p in params] == [(784, 500), (500,), (500, 10), (10,)]
    for p, std in zip(params, stds):
        assert p.std().item() == pytest.approx(std, rel=.5 if p.numel() == 10 else .1 if p.numel() < 10_000 else .01)


@pytest.mark.parametrize('factor, expected', [(1, 1/32), (2, 1)])
def test_two_over_the_inputs_keeps_the_mean_square_and_one_over_them_halves_it_in_each_layer(factor, expected):
    torch.manual_seed(0)
    z = torch.randn(1000, 1000)
    before = z.relu().square().mean().item()
    for _ in range(5): z = z.relu()@init_params((1000, 1000), (factor/1000)**.5).detach()
    assert z.relu().square().mean().item()/before == pytest.approx(expected, rel=.2)


@needs_all
def test_a_short_row_of_the_grid_comes_out_again():
    row = recorded_rows('grid').query("purpose == 'short' and loss == 'softmax cross-entropy'").iloc[0]
    split = [(x, one_hot(y)) for x, y in piles()]
    check_again(script('grid').one_run(split, 'short', row.loss, row.start, row.lr, int(row.seed), int(row.epochs)), row)


# With others' loaders and loops.

def test_loaders_and_metrics_of_others_fit():
    from fastai.basics import DataLoader as FastDataLoader
    from torch.utils.data import DataLoader, TensorDataset
    params, (x, t) = net(), digits()
    ours = validate_epoch(net_of(params), BatchLoader(x, t, 20))
    for dl in (FastDataLoader(list(zip(x, t)), batch_size=20), DataLoader(TensorDataset(x, t), 20)):
        assert validate_epoch(net_of(params), dl) == pytest.approx(ours)
        train_epoch(net_of(params), 1e-9, params, dl, F.cross_entropy)
    ours = validate_epoch(net_of(params), BatchLoader(x, t, 20), softmax_cross_entropy)
    assert validate_epoch(net_of(params), BatchLoader(x, t, 20), F.cross_entropy) == pytest.approx(ours)


def test_learner_takes_loss_and_metric_as_they_are():
    from fastai.basics import DataLoader, DataLoaders, Learner, SGD
    from fastai.callback import progress       # gives Learner its no_bar
    x, t = digits()
    dl = DataLoader(list(zip(x, t)), batch_size=20)
    learn = Learner(DataLoaders(dl, dl), nn.Linear(784, 10), loss_func=softmax_cross_entropy, opt_func=SGD, metrics=batch_accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, lr=.1)
    loss, accuracy = learn.validate()
    assert accuracy == pytest.approx(validate_epoch(learn.model, BatchLoader(x, t, 20)), abs=1e-6)
    assert loss == pytest.approx(validate_epoch(learn.model, BatchLoader(x, t, 20), softmax_cross_entropy), abs=1e-5)


@on_each_device
def test_works_where_its_input_is(device):
    x, t = digits(device=device)
    scores = simple_net(x, *net(device))
    assert scores.device == batch_accuracy(scores, t).device == softmax_cross_entropy(scores, t).device == x.device


def test_importing_the_net_does_not_import_what_it_does_not_need():
    code = ('import sys, mnist_foundations.net; '
            'print([m for m in ("fastai", "matplotlib", "pandas", "mlxtend", "PIL", "fastprogress") if m in sys.modules])')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == '[]\n'
