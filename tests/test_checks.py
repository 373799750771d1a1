"What is refused, with its message; what is the same whatever its dtype, device or library; and what is put back."
import math, warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn, tensor

from mnist_foundations.backprop import backprop_epoch
from mnist_foundations.checks import (as_labels, as_tensor, check_axes, check_convolution, check_count, check_floating,
                                      check_gradients, check_images, check_layer, check_loader, check_positive, check_predictions, check_rows,
                                      check_same_pixels, check_share, check_step, check_targets, check_trainable,
                                      class_indices, evaluating, is_sorted, mean_loss, restored, warn_if_in_order,
                                      weighted_mean)
from mnist_foundations.data import BatchLoader, one_hot
from mnist_foundations.linear import init_params, linear1, mnist_loss, train_epoch
from mnist_foundations.net import batch_accuracy, simple_net, softmax_cross_entropy, validate_epoch
from mnist_foundations.optimizers import SGD
from mnist_foundations.similarity import average_images, l1_distance, l2_distance, nearest_average
from mnist_foundations.training import fit
from no_float64 import NoFloat64, there

nan, inf = float('nan'), float('inf')
zeros = torch.zeros


# Numbers

@pytest.mark.parametrize('value', [1, .5, 1e-30, 1e30, np.float32(2), 10**300])
def test_positive_numbers(value):
    assert check_positive('lr', value) == float(value) and type(check_positive('lr', value)) is float


@pytest.mark.parametrize('value, error', [(0, ValueError), (-1., ValueError), (nan, ValueError), (inf, ValueError),
                                          (True, TypeError), ('1', TypeError), (None, TypeError), (1j, TypeError),
                                          (tensor(1.), TypeError)])
def test_not_positive(value, error):
    with pytest.raises(error, match='lr is .*; expected a positive number'): check_positive('lr', value)


def test_shares_and_counts():
    for value in 0, 0., .999: check_share('share', value)
    for value in 0, 7, 1e9: check_share('std', value, math.inf)
    check_count('n', 1)
    check_count('n', np.int64(60_000))
    for value in 1, -.1, nan, inf, '.5', None:
        with pytest.raises(ValueError, match='share is .*; expected from 0 to below 1$'): check_share('share', value)
    for value in -1, nan, inf:
        with pytest.raises(ValueError, match='std is .*; expected 0 or more'): check_share('std', value, math.inf)
    for value in 0, -1, 2., 2.5, True, '3', None:
        with pytest.raises(ValueError, match='n is .*; expected a whole number, at least 1$'): check_count('n', value)
    for value in 0, np.int64(3): check_count('n', value, least=0)
    for value in -1, False, .5, None:
        with pytest.raises(ValueError, match='n is .*; expected a whole number, at least 0$'): check_count('n', value, least=0)
    with pytest.raises(ValueError, match='n is 2; expected a whole number, at least 3'): check_count('n', 2, 3)


# Tensors and their shapes

@pytest.mark.parametrize('call, error, said', [
    (lambda: as_tensor('y', {1, 2}), TypeError, 'y is a set; expected numbers'),
    (lambda: as_tensor('y', 'two'), TypeError, 'y is a str; expected numbers'),
    (lambda: as_tensor('y', None), TypeError, 'y is a NoneType; expected numbers'),
    (lambda: as_tensor('y', [[1], [2, 3]]), TypeError, 'y is a list; expected numbers'),
    (lambda: as_tensor('y', np.array(['a'])), TypeError, 'y is a ndarray; expected numbers'),
    (lambda: check_axes('x', zeros(3), 'n', 'p'), ValueError, r'x has the shape \(3,\); expected \(n,p\)'),
    (lambda: check_axes('y', zeros(3, 1), 'n'), ValueError, r'y has the shape \(3, 1\); expected \(n,\)'),
    (lambda: check_floating('xb', tensor([1])), TypeError, r'xb is torch.int64; expected floating point: xb.float\(\)/255'),
    (lambda: check_floating('xb', np.zeros(3)), TypeError, 'xb is a ndarray; expected a tensor'),
    (lambda: check_rows(zeros(1), zeros(2)), ValueError, 'x has 1 rows and y has 2; expected as many, at least one'),
    (lambda: check_rows(zeros(0), zeros(0)), ValueError, 'x has 0 rows and y has 0'),
    (lambda: check_rows(zeros(1), zeros(1, device='meta'), ('a', 'b')), ValueError, 'a is on cpu and b on meta; expected one'),
    (lambda: check_same_pixels(zeros(784), zeros(28, 28)), ValueError, r'a has the shape \(784,\) and b \(28, 28\)'),
    (lambda: check_same_pixels(zeros(()), zeros(1)), ValueError, 'as many pixels'),
    (lambda: check_layer(zeros(2, 3), zeros(2, 3), zeros(3)), ValueError, r'xb has the shape \(2, 3\) and weights \(2, 3\)'),
    (lambda: check_layer(zeros(3), zeros(3, 2), zeros(2)), ValueError, r'xb has the shape \(3,\)'),
    (lambda: check_layer(zeros(2, 3), zeros(3), zeros(1)), ValueError, r'weights \(3,\); expected \(n,p\) and \(p,c\)'),
    (lambda: check_layer(zeros(2, 3), zeros(3, 2), zeros(2, 1)), ValueError, r'bias has the shape \(2, 1\); expected \(2,\)'),
    (lambda: check_layer(zeros(2, 3), zeros(3, 2), zeros(3), ('h', 'w', 'b')), ValueError, r'b has the shape \(3,\)'),
    (lambda: check_layer(np.zeros((2, 3)), zeros(3, 2), zeros(2)), TypeError, 'xb is a ndarray; expected a tensor'),
    (lambda: check_convolution(zeros(2, 3, 5, 5), zeros(4, 2, 3, 3)), ValueError,
     r'xb has the shape \(2, 3, 5, 5\) and weights \(4, 2, 3, 3\); expected filters for 3 channels'),
    (lambda: check_convolution(zeros(3, 3, 5, 5), zeros(3, 2, 3, 3)), ValueError, 'expected filters for 3 channels'),
    (lambda: check_convolution(zeros(3, 5, 5), zeros(4, 3, 3, 3)), ValueError, r'xb has the shape \(3, 5, 5\); expected \(n,c,h,w\)'),
    (lambda: check_convolution(zeros(2, 3, 5, 5), zeros(3, 3, 3)), ValueError, r'weights has the shape \(3, 3, 3\); expected \(n,c,h,w\)'),
    (lambda: check_convolution(zeros(2, 3, 5, 5), zeros(4, 3, 2, 2), zeros(3)), ValueError, r'bias has the shape \(3,\); expected \(4,\)'),
    (lambda: check_convolution(zeros(2, 3, 5, 5), zeros(4, 3, 2, 2), zeros(4, 1)), ValueError, r'bias has the shape \(4, 1\)'),
    (lambda: check_convolution(zeros(1, 1, 5, 5).byte(), zeros(1, 1, 2, 2)), TypeError, r'xb is torch.uint8; .* xb.float\(\)/255'),
    (lambda: check_convolution(np.zeros((1, 1, 5, 5)), zeros(1, 1, 2, 2)), TypeError, 'xb is a ndarray; expected a tensor')])
def test_shapes_and_kinds_that_are_refused(call, error, said):
    with pytest.raises(error, match=said): call()


def test_shapes_that_fit():
    check_axes('x', zeros(2, 3), 'n', 'p')
    check_same_pixels(zeros(5, 1, 784), zeros(10, 784))
    for bias in zeros(2), zeros(1): check_layer(zeros(0, 3), zeros(3, 2), bias)
    for bias in None, zeros(4): check_convolution(zeros(0, 3, 5, 6), zeros(4, 3, 2, 7), bias)


def test_arrays_and_lists_become_tensors_and_tensors_stay():
    t = zeros(3, requires_grad=True)
    assert as_tensor('x', t) is t
    array = np.arange(6, dtype=np.float64)[::-2]
    made = as_tensor('x', array)
    assert made.tolist() == [5, 3, 1] and made.dtype == torch.float64
    array[:] = 0
    assert made.tolist() == [5, 3, 1]                    # a copy
    assert as_tensor('y', [1, 2]).dtype == torch.int64 and as_tensor('y', (1., 2)).dtype == torch.float32
    for dtype in np.uint16, np.uint32, np.uint64: assert as_tensor('y', np.array([7], dtype)).dtype == torch.int64


# Images and labels

@pytest.mark.parametrize('call, error, said', [
    (lambda: check_images(tensor([[0., 255]])), ValueError, 'x goes from 0 to 255; .* undivided bytes'),
    (lambda: check_images(tensor([[0., nan]])), ValueError, 'x goes from nan to nan'),
    (lambda: check_images(tensor([[0., -inf]])), ValueError, 'x goes from -inf to 0'),
    (lambda: check_images(tensor([[0, 255]], dtype=torch.uint8)), TypeError, r'x is torch.uint8; .* x.float\(\)/255'),
    (lambda: as_labels('y', tensor([3, 10]), 10), ValueError, 'y has labels from 3 to 10; expected 0 to 9'),
    (lambda: as_labels('y', tensor([-1, 1]), 2), ValueError, 'y has labels from -1 to 1; expected 0 to 1'),
    (lambda: as_labels('y', tensor([1.]), 10), TypeError, 'y is torch.float32; expected integer labels'),
    (lambda: as_labels('y', tensor([1j]), 10), TypeError, 'y is torch.complex64'),
    (lambda: as_labels('y', tensor([[1]]), 10), ValueError, r'y has the shape \(1, 1\); expected \(n,\)'),
    (lambda: check_loader(zeros(2, 3), tensor([0]), 1), ValueError, 'x has 2 rows and y has 1'),
    (lambda: check_loader(zeros(2, 3), tensor([0, -1]), 1), ValueError, 'y goes from -1 to 0; expected targets in'),
    (lambda: check_loader(zeros(2, 3), tensor([0, 1.5]), 1), ValueError, 'y goes from 0 to 1.5'),
    (lambda: check_loader(zeros(2, 3), tensor([0, nan]), 1), ValueError, 'y goes from nan'),
    (lambda: check_loader(zeros(2, 3), tensor([0, 1]), 0), ValueError, 'batch_size is 0'),
    (lambda: check_loader(tensor([1, 2]), tensor([0, 1]), 1), TypeError, 'x is torch.int64')])
def test_images_and_labels_that_are_refused(call, error, said):
    with pytest.raises(error, match=said): call()


def test_images_that_pass_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for x in tensor([0., 1]), tensor([-.42, 2.8]), tensor([.5, .59]), tensor([1.2, 1.2]): check_images(x)
        check_loader(zeros(3, 784), tensor([0, 9, 200]), 2)
        check_loader(zeros(3, 784), tensor([0., .5, 1]), 2)
        check_loader(zeros(3, 784), tensor([True, False, True]), 2)


def test_white_paper_is_said_once():
    paper = 1 - torch.linspace(0, .3, 20*784).view(20, 784)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('default')
        for x in paper, paper.clone(), paper: BatchLoader(x, torch.arange(20).flip(0) % 7, 4)
    assert [str(w.message)[:50] for w in said] == ['the mean pixel is 0.85, which looks like dark ink ']


def test_labels_in_order_are_said_once_a_loader():
    w, b = init_params((3, 1)), init_params(1)
    def trains(y, shuffle=False):
        dl = BatchLoader(torch.rand(4, 3)/2, tensor(y).float().unsqueeze(1), 2, shuffle)
        return lambda: train_epoch(lambda xb: linear1(xb, w, b), .1, [w, b], dl)
    first, second = trains([0, 0, 1, 1]), trains([1, 1, 0, 0])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        for epoch in first, first, second, trains([0, 1, 0, 1]), trains([0, 0, 1, 1], shuffle=True), trains([1]*4), first: epoch()
        warn_if_in_order([(1, 2)])                       # any other loader, also torch's, whose in_order is something else
        warn_if_in_order(torch.utils.data.DataLoader([1, 2]))
    assert len(said) == 2 and all('the labels come in order' in str(w.message) for w in said)
    assert all(w.filename == __file__ for w in said)     # it points at who called train_epoch


@pytest.mark.parametrize('y, expected', [
    ([0, 0, 1], True), ([9, 3, 3], True), ([0, 1, 0], False), ([5, 5, 5], False), ([1], False),
    ([[0], [1]], True), ([[1], [0], [1]], False), (torch.eye(4), True), (torch.eye(4).flip(0), True),
    (torch.eye(4)[[1, 0, 2]], False), (torch.eye(2, dtype=torch.bool), True), (tensor([3, 250, 1], dtype=torch.uint8), False)])
def test_is_sorted(y, expected): assert is_sorted(torch.as_tensor(y)) is expected


# Predictions and targets

dtypes = [torch.int64, torch.int32, torch.int16, torch.uint8, torch.uint16, torch.bool, torch.float16, torch.float32, torch.float64]
whole = [d for d in dtypes if not d.is_floating_point]
scores = tensor([[2., -1], [.5, 1.5], [-1, -3], [0, 1]])          # the highest are 0, 1, 0, 1
labels = tensor([0, 1, 1, 1])                                     # three of four are right
hot = tensor([[1., 0], [0, 1], [0, 1], [0, 1]])


@pytest.mark.parametrize('dtype', whole)
def test_labels_mean_the_same_whatever_their_dtype(dtype):
    for y in labels.to(dtype), labels.numpy().astype(str(dtype)[6:]):
        assert batch_accuracy(scores, y).item() == .75
        assert class_indices(scores, y).tolist() == [0, 1, 1, 1] and class_indices(scores, y).dtype == torch.int64
        assert as_labels('y', y, 2).tolist() == [0, 1, 1, 1] and as_labels('y', y, 2).dtype == torch.int64
        assert torch.equal(one_hot(y, 2), hot)
        assert softmax_cross_entropy(scores, y).item() == pytest.approx(F.cross_entropy(scores, labels).item(), abs=1e-6)
        xb, yb = next(iter(BatchLoader(zeros(4, 784), y, 4)))
        assert batch_accuracy(scores, yb).item() == .75


@pytest.mark.parametrize('dtype', dtypes)
def test_zeros_and_ones_mean_the_same_whatever_their_dtype(dtype):
    by_hand = (.119203 + .268941 + .622459 + .182426 + .268941 + .952574 + .5 + .268941)/8      # |sigmoid - target|
    for t in hot.to(dtype), hot.numpy().astype(str(dtype)[6:]):
        assert batch_accuracy(scores, t).item() == .75
        assert mnist_loss(scores, t).item() == pytest.approx(by_hand, abs=1e-6)
        assert softmax_cross_entropy(scores, t).item() == pytest.approx(F.cross_entropy(scores, labels).item(), abs=1e-6)
        assert check_targets(scores, t).dtype == scores.dtype
        assert batch_accuracy(scores[:, :1], t[:, :1]).item() == .75         # 2 and .5 are above 0; only the first should be


@pytest.mark.parametrize('call, error, said', [
    (lambda: check_targets(zeros(4, 1), zeros(4)), ValueError, r'predictions have the shape \(4, 1\) and targets \(4,\)'),
    (lambda: check_targets(zeros(0, 1), zeros(0, 1)), ValueError, r'the batch is empty, of the shape \(0, 1\)'),
    (lambda: check_targets(zeros(2), tensor([0., .5])), ValueError, 'targets go from 0 to 0.5; expected only 0 and 1'),
    (lambda: check_targets(zeros(2), tensor([0, -1])), ValueError, 'targets go from -1 to 0'),
    (lambda: check_targets(zeros(2), tensor([0., nan])), ValueError, 'targets go from nan to nan'),
    (lambda: check_targets(np.zeros(2), zeros(2)), TypeError, 'predictions is a ndarray; expected a tensor'),
    (lambda: check_targets(zeros(2), {0, 1}), TypeError, 'targets is a set'),
    (lambda: class_indices(zeros(3), zeros(3)), ValueError, r'predictions has the shape \(3,\); expected \(n,c\)'),
    (lambda: class_indices(np.zeros((2, 3)), zeros(2, 3)), TypeError, 'predictions is a ndarray; expected a tensor'),
    (lambda: class_indices(zeros(2, 3), zeros(2)), ValueError,
     r'targets are torch.float32 labels of the shape \(2,\); expected one-hot rows \(2, 3\), or integer labels \(2,\) from 0 to 2'),
    (lambda: class_indices(zeros(2, 3), zeros(3, 2)), ValueError, r'float32 rows of the shape \(3, 2\)'),
    (lambda: class_indices(zeros(2, 3), tensor([[0], [1]])), ValueError, r'int64 rows of the shape \(2, 1\)'),
    (lambda: class_indices(zeros(0, 3), zeros(0, 3)), ValueError, 'the batch is empty'),
    (lambda: class_indices(zeros(2, 1), zeros(2, 1)), ValueError, r'predictions have the shape \(2, 1\); expected a column a class'),
    (lambda: class_indices(zeros(2, 3), tensor([0, 3])), ValueError, 'targets are labels from 0 to 3; .* from 0 to 2'),
    (lambda: class_indices(zeros(2, 3), tensor([-1, 2])), ValueError, 'targets are labels from -1 to 2'),
    (lambda: class_indices(zeros(2, 2), torch.ones(2, 2)), ValueError, 'rows that hold more, or less, than a single 1'),
    (lambda: class_indices(zeros(2, 2), zeros(2, 2)), ValueError, 'rows that hold more, or less, than a single 1'),
    (lambda: class_indices(zeros(1, 2), tensor([[.5, .5]])), ValueError, 'rows that hold more, or less, than a single 1'),
    (lambda: class_indices(zeros(1, 3), tensor([[1, 1, -1]])), ValueError, 'rows that hold more, or less, than a single 1')])
def test_targets_that_are_refused(call, error, said):
    with pytest.raises(error, match=said): call()


def test_predictions_that_are_no_numbers():
    check_predictions(tensor([1., inf, -inf]))
    with pytest.raises(ValueError, match='predictions hold 2 nan; expected numbers'): check_predictions(tensor([1., nan, nan]))
    with pytest.raises(TypeError, match='predictions is torch.int64'): check_predictions(tensor([1]))
    with pytest.raises(TypeError, match='predictions is a ndarray'): check_predictions(np.ones(2))


def test_a_model_that_answers_nan_is_not_right_about_every_zero():
    for shape in (10, 10), (10, 1), (10,):
        with pytest.raises(ValueError, match='predictions hold .* nan'):
            batch_accuracy(torch.full(shape, nan), torch.arange(10) if shape == (10, 10) else torch.ones(shape))


# NumPy arrays

def test_arrays_are_welcome_or_plainly_refused():
    x, y = np.random.default_rng(0).random((6, 784), dtype=np.float32), np.array([0, 1, 0, 1, 1, 0], np.int32)
    assert torch.equal(average_images(x, y), average_images(torch.tensor(x), torch.tensor(y)))
    assert nearest_average(x, average_images(x, y)).shape == (6,)
    for distance in l1_distance, l2_distance: assert torch.is_tensor(distance(x, x[0])) and distance(x, x[0])[0] == 0
    dl = BatchLoader(x, y, 4)
    assert [yb.tolist() for xb, yb in dl] == [[0, 1, 0, 1], [1, 0]]
    for call in (lambda: linear1(x, zeros(784, 1), zeros(1)), lambda: simple_net(x, zeros(784, 2), zeros(2), zeros(2, 1), zeros(1)),
                 lambda: mnist_loss(x, x), lambda: batch_accuracy(x, y), lambda: softmax_cross_entropy(x, y)):
        with pytest.raises(TypeError, match='is a ndarray; expected a tensor'): call()


# An epoch

@pytest.mark.parametrize('call, error, said', [
    (lambda: check_step(.1, []), ValueError, 'params is empty; expected at least one tensor'),
    (lambda: check_step(.1, [zeros(1), tensor([nan])]), ValueError, r'params\[1\] has values that are not finite'),
    (lambda: check_step(0, [zeros(1)]), ValueError, 'lr is 0; expected a positive number'),
    (lambda: check_trainable([zeros(1)]), ValueError, r'params\[0\] does not require a gradient: p.requires_grad_\(\)'),
    (lambda: check_gradients([zeros(1)]), ValueError, r'params\[0\] got no gradient; expected model to use it'),
    (lambda: mean_loss([], [], .1, []), ValueError, 'dl has no batches'),
    (lambda: mean_loss([tensor(1.), tensor(nan)], [1, 1], 9., []), ValueError, 'in batch 1 of 2; lr=9.0 is likely too large'),
    (lambda: mean_loss([tensor(1.)], [1], 9., [tensor([inf])]), ValueError, 'in the last step; lr=9.0'),
    (lambda: weighted_mean([1.], [1, 2]), ValueError, 'zip')])
def test_epochs_that_are_refused(call, error, said):
    with pytest.raises(error, match=said): call()


def test_means_are_weighed_and_added_in_python():
    assert weighted_mean([1., .5], [3, 1]) == .875
    assert mean_loss([tensor(2.), tensor(1.)], [1, 3], .1, [zeros(1)]) == 1.25
    for dtype in torch.bfloat16, torch.float16:
        assert weighted_mean([torch.ones((), dtype=dtype)]*1000, [64]*1000) == 1
        batches = [(zeros(64, 1), zeros(64, 1))]*1000
        assert validate_epoch(lambda xb: xb, batches, metric=lambda p, t: torch.ones((), dtype=dtype)) == 1
    assert check_step(np.float32(.5), [zeros(1)]) == .5


# A device without float64

def test_the_stand_in_refuses_what_apples_gpus_refuse():
    t = there(torch.rand(3))
    for wrong in (lambda: t.double(), lambda: t.to(torch.float64), lambda: t.sum(dtype=torch.float64), lambda: t.numpy(),
                  lambda: torch.mul(t, torch.ones(3, dtype=torch.float64)), lambda: t.double().cpu()):
        with pytest.raises(TypeError, match='no float64|NumPy reads'): wrong()
    assert t.cpu().double().dtype == torch.float64 and type(t.cpu()) is torch.Tensor and type(t*2) is NoFloat64


def test_nothing_computes_float64_on_a_device_that_has_none():
    torch.manual_seed(0)
    x, y = there(torch.rand(40, 784)), there(torch.randint(10, (40,)))
    t = one_hot(y)
    params = [there(init_params(s, .05)) for s in ((784, 20), 20, (20, 10), 10)]
    assert all(p.is_leaf and p.requires_grad for p in params)
    def net(xb): return simple_net(xb, *params)
    first = validate_epoch(net, BatchLoader(x, y, 16), softmax_cross_entropy)
    for targets, loss in (t, mnist_loss), (t, softmax_cross_entropy), (y, softmax_cross_entropy):
        dl = BatchLoader(x, targets, 16, shuffle=True)
        assert isinstance(next(iter(dl))[1], NoFloat64)
        for epoch in range(10): assert type(train_epoch(net, .1, params, dl, loss)) is float
        assert type(validate_epoch(net, dl)) is float
    assert validate_epoch(net, BatchLoader(x, y, 16), softmax_cross_entropy) < first - .1      # it has learned
    assert isinstance(nearest_average(x, average_images(x, y)), NoFloat64)
    for targets in t, y:
        dl = BatchLoader(x, targets, 16, shuffle=True)
        assert type(backprop_epoch(.1, params, dl)) is float
        for opt in SGD(params, .1, momentum=.9), torch.optim.SGD(params, .1, momentum=.9):
            assert {type(value) for row in fit(net, dl, dl, opt, 2) for value in row.values()} == {int, float}


# What is put back

def test_parameters_are_put_back_after_an_error_only():
    p, q = tensor([1., 2], requires_grad=True), tensor([3.])
    def change(error, to=7.):
        with restored([p, q]), torch.no_grad():
            p.fill_(to)
            q.fill_(to)
            if error: raise error
    with pytest.raises(ValueError, match='mine'): change(ValueError('mine'))
    assert p.tolist() == [1, 2] and q.tolist() == [3] and p.requires_grad
    with pytest.raises(KeyboardInterrupt): change(KeyboardInterrupt(), nan)
    assert p.tolist() == [1, 2] and q.tolist() == [3]
    with pytest.raises(KeyboardInterrupt): change(KeyboardInterrupt())
    assert p.tolist() == [7, 7]                          # what was learned until the interrupt is kept
    change(None, 8.)
    assert p.tolist() == [8, 8] and q.tolist() == [8]


def test_an_optimizer_is_put_back_with_its_parameters_and_always_where_asked():
    p, mask = zeros(2).requires_grad_(), tensor([-inf])
    opt = torch.optim.SGD([p], 1., momentum=.5)
    def steps(n, **how):
        with restored([p, mask], opt, **how):
            for _ in range(n): p.grad = torch.ones(2); opt.step()
            mask.fill_(-inf)
            if not how: raise KeyboardInterrupt()        # a mask of -inf is no reason to lose what was learned
    with pytest.raises(KeyboardInterrupt): steps(1)
    assert p.tolist() == [-1, -1] and opt.state[p]['momentum_buffer'].tolist() == [1, 1]
    steps(3, always=True)
    assert p.tolist() == [-1, -1] and opt.state[p]['momentum_buffer'].tolist() == [1, 1]
    with pytest.raises(ValueError, match='mine'), restored([p], opt):
        opt.step()
        raise ValueError('mine')
    assert p.tolist() == [-1, -1] and opt.state[p]['momentum_buffer'].tolist() == [1, 1]


def test_an_epoch_that_fails_in_its_last_batch_changes_nothing():
    w, b = init_params((3, 1)), init_params(1)
    before = w.tolist(), b.tolist()
    dl = [(torch.rand(2, 3), torch.ones(2, 1)), (torch.rand(2, 3), torch.ones(2))]
    with pytest.raises(ValueError, match='expected the same'): train_epoch(lambda xb: linear1(xb, w, b), .1, [w, b], dl)
    assert (w.tolist(), b.tolist()) == before


@pytest.mark.parametrize('fails', [False, True])
def test_measuring_changes_no_mode_and_no_average(fails):
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()), nn.Linear(3, 2))
    net[1][0].eval()                                     # frozen inside a part that trains
    modes = [m.training for m in net.modules()]
    assert modes.count(False) == 1
    inside = []
    def metric(p, t):
        inside.append([m.training for m in net.modules()] + [torch.is_grad_enabled(), p.requires_grad])
        if fails: raise ValueError('the metric broke')
        return batch_accuracy(p, t)
    dl = BatchLoader(torch.rand(5, 3), tensor([0, 1, 0, 1, 0]), 5)
    if fails:
        with pytest.raises(ValueError, match='the metric broke'): validate_epoch(net, dl, metric)
    else: assert 0 <= validate_epoch(net, dl, metric) <= 1
    assert inside == [[False]*(len(modes) + 2)]
    assert [m.training for m in net.modules()] == modes and torch.is_grad_enabled()
    for norm in net[0], net[1][0]: assert norm.running_mean.tolist() == [0]*3 and norm.num_batches_tracked == 0


def test_a_plain_function_is_measured_too():
    with evaluating(lambda xb: xb): assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
