"Bad input to the functions of chapters 01 and 03, and properties that would not teach a reader."
import subprocess, sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mnist_foundations.data import BatchLoader, one_hot
from mnist_foundations.linear import init_params, mnist_loss, train_epoch
from mnist_foundations.net import batch_accuracy, simple_net, validate_epoch
from mnist_foundations.show import show_confusion
from mnist_foundations.similarity import average_images, l1_distance, l2_distance, nearest_average

devices = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU'))]


def digits(n=50, device='cpu'):
    "n random images with one-hot targets."
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 784, generator=g).to(device), one_hot(torch.randint(10, (n,), generator=g)).to(device)


def net(device='cpu'):
    torch.manual_seed(0)
    return [init_params(s, .05, device) for s in ((784, 20), 20, (20, 10), 10)]


# Shapes and values that would give a number, and a wrong one.

@pytest.mark.parametrize('func', [batch_accuracy])
@pytest.mark.parametrize('predicted, targets', [((4, 10), (4,)), ((4, 1), (4,)), ((4,), (4, 1)), ((4, 10), (4, 1)),
                                                ((4, 10), (3, 10))])
def test_shapes_that_would_broadcast(func, predicted, targets):
    with pytest.raises(ValueError, match='predictions have the shape .* expected the same'):
        func(torch.zeros(predicted), torch.zeros(targets))


@pytest.mark.parametrize('func', [batch_accuracy])
@pytest.mark.parametrize('bad', [2., -1., .5, float('nan')])
def test_targets_outside_0_and_1(func, bad):
    with pytest.raises(ValueError, match='expected only 0 and 1'):
        func(torch.zeros(2, 1), torch.tensor([[1.], [bad]]))


@pytest.mark.parametrize('func', [batch_accuracy])
def test_empty_batch(func):
    with pytest.raises(ValueError, match='the batch is empty'): func(torch.zeros(0, 10), torch.zeros(0, 10))


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int64])
def test_integer_images(dtype):
    with pytest.raises(TypeError, match=f'{dtype}; expected floating point'):
        simple_net(torch.zeros(2, 784, dtype=dtype), *net())


@pytest.mark.parametrize('shapes, named', [
    (((784,), (784, 20), (20,), (20, 10), (10,)), r'xb has the shape \(784,\)'),
    (((2, 783), (784, 20), (20,), (20, 10), (10,)), r'w1 \(784, 20\)'),
    (((2, 784), (784, 20), (21,), (20, 10), (10,)), r'b1 has the shape \(21,\)'),
    (((2, 784), (784, 20), (20,), (21, 10), (10,)), r'w2 \(21, 10\)'),
    (((2, 784), (784, 20), (20,), (20, 10), (2, 10)), r'b2 has the shape \(2, 10\)')])
def test_layers_that_do_not_fit(shapes, named):
    with pytest.raises(ValueError, match=named): simple_net(*map(torch.zeros, shapes))


@pytest.mark.parametrize('func', [l1_distance, l2_distance])
def test_distances_of_unequal_pixels(func):
    for b in (torch.zeros(1), torch.zeros(5, 783), torch.tensor(0.)):
        with pytest.raises(ValueError, match='as many pixels'): func(torch.zeros(5, 784), b)


def test_averages_of_nothing():
    with pytest.raises(ValueError, match='at least one'): average_images(torch.zeros(0, 784), torch.zeros(0).long())


def net_of(params): return lambda xb: simple_net(xb, *params)


def test_no_batches():
    with pytest.raises(ValueError, match='valid_dl has no batches'): validate_epoch(lambda xb: xb, [])


# Against PyTorch, and exact.

@pytest.mark.parametrize('device', devices)
@pytest.mark.parametrize('batch_size', [1, 7, 49, 50, 99])
def test_validation_does_not_depend_on_the_batches(batch_size, device):
    params, (x, t) = net(device), digits(device=device)
    whole = (simple_net(x, *params).argmax(1) == t.argmax(1)).double().mean().item()
    assert validate_epoch(net_of(params), BatchLoader(x, t, batch_size)) == pytest.approx(whole, abs=1e-6)


def test_gradients_in_float64():
    params = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((6, 4), 4, (4, 3), 3)]
    x = torch.rand(5, 6, dtype=torch.float64)
    t = one_hot(torch.tensor([0, 1, 2, 1, 0]), 3).double()
    assert torch.autograd.gradcheck(lambda *ps: mnist_loss(simple_net(x, *ps), t), params)


def test_one_column_as_column_or_row():
    z, t = torch.tensor([2., -1., 0.]), torch.tensor([1., 1., 0.])
    assert batch_accuracy(z, t) == batch_accuracy(z[:, None], t[:, None]) == pytest.approx(2/3)


def test_loaders_and_metrics_of_others_fit():
    from fastai.basics import DataLoader as FastDataLoader
    from torch.utils.data import DataLoader, TensorDataset
    params, (x, t) = net(), digits()
    ours = validate_epoch(net_of(params), BatchLoader(x, t, 20))
    for dl in (FastDataLoader(list(zip(x, t)), batch_size=20), DataLoader(TensorDataset(x, t), 20)):
        assert validate_epoch(net_of(params), dl) == pytest.approx(ours)
        train_epoch(net_of(params), 1e-9, params, dl, F.cross_entropy)
    assert validate_epoch(net_of(params), BatchLoader(x, t, 20), F.cross_entropy) > 0


def test_learner_takes_loss_and_metric_as_they_are():
    from fastai.basics import DataLoader, DataLoaders, Learner, SGD
    from fastai.callback import progress       # gives Learner its no_bar
    x, t = digits()
    dl = DataLoader(list(zip(x, t)), batch_size=20)
    learn = Learner(DataLoaders(dl, dl), nn.Linear(784, 10), loss_func=mnist_loss, opt_func=SGD, metrics=batch_accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, lr=.1)
    loss, accuracy = learn.validate()
    assert accuracy == pytest.approx(validate_epoch(learn.model, BatchLoader(x, t, 20)), abs=1e-6)


@pytest.mark.parametrize('device', devices)
def test_works_where_its_input_is(device):
    x, t = digits(device=device)
    y = t.argmax(1)
    assert nearest_average(x, average_images(x, y)).device == x.device
    assert show_confusion(nearest_average(x, average_images(x, y)), y).alt
    assert init_params(3, device=device).device.type == device
    assert next(iter(BatchLoader(x, t, 20, shuffle=True)))[0].device == x.device


def test_importing_the_net_does_not_import_what_it_does_not_need():
    code = ('import sys, mnist_foundations.net; '
            'print([m for m in ("fastai", "matplotlib", "pandas", "mlxtend", "PIL", "fastprogress") if m in sys.modules])')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout == '[]\n'
