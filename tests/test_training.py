"Bad input to the functions of chapters 01 to 03, and properties that would not teach a reader."
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mnist_foundations.data import BatchLoader, one_hot
from mnist_foundations.linear import calc_grad, init_params, linear1, mnist_loss, train_epoch
from mnist_foundations.net import simple_net
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

@pytest.mark.parametrize('func', [mnist_loss])
@pytest.mark.parametrize('predicted, targets', [((4, 10), (4,)), ((4, 1), (4,)), ((4,), (4, 1)), ((4, 10), (4, 1)),
                                                ((4, 10), (3, 10))])
def test_shapes_that_would_broadcast(func, predicted, targets):
    with pytest.raises(ValueError, match='predictions have the shape .* expected the same'):
        func(torch.zeros(predicted), torch.zeros(targets))


@pytest.mark.parametrize('func', [mnist_loss])
@pytest.mark.parametrize('bad', [2., -1., .5, float('nan')])
def test_targets_outside_0_and_1(func, bad):
    with pytest.raises(ValueError, match='expected only 0 and 1'):
        func(torch.zeros(2, 1), torch.tensor([[1.], [bad]]))


@pytest.mark.parametrize('func', [mnist_loss])
def test_empty_batch(func):
    with pytest.raises(ValueError, match='the batch is empty'): func(torch.zeros(0, 10), torch.zeros(0, 10))


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int64])
def test_integer_images(dtype):
    with pytest.raises(TypeError, match=f'{dtype}; expected floating point'):
        linear1(torch.zeros(2, 784, dtype=dtype), torch.zeros(784, 1), torch.zeros(1))


@pytest.mark.parametrize('func', [l1_distance, l2_distance])
def test_distances_of_unequal_pixels(func):
    for b in (torch.zeros(1), torch.zeros(5, 783), torch.tensor(0.)):
        with pytest.raises(ValueError, match='as many pixels'): func(torch.zeros(5, 784), b)


def test_averages_of_nothing():
    with pytest.raises(ValueError, match='at least one'): average_images(torch.zeros(0, 784), torch.zeros(0).long())


# train_epoch: errors before, in, and after the loop leave finite parameters.

def train(**change):
    params = net()
    args = dict(model=net_of(params), lr=.1, params=params, dl=BatchLoader(*digits(), 20),
                loss_func=F.cross_entropy) | change
    return train_epoch(**args)


def net_of(params): return lambda xb: simple_net(xb, *params)


@pytest.mark.parametrize('lr, error', [(0, ValueError), (-1., ValueError), (float('nan'), ValueError),
                                       (float('inf'), ValueError), ('1', TypeError), (None, TypeError), (True, TypeError)])
def test_lr(lr, error):
    with pytest.raises(error, match='lr is .* expected a positive number'): train(lr=lr)


def test_params():
    with pytest.raises(ValueError, match='params is empty'): train(params=[])
    with pytest.raises(ValueError, match=r'params\[0\] does not require a gradient'): train(params=[torch.zeros(3)])
    with pytest.raises(ValueError, match=r'params\[0\] got no gradient'): train(params=[init_params(3)])
    with pytest.raises(ValueError, match=r'params\[1\] has values that are not finite'):
        train(params=[init_params(3), torch.tensor([float('nan')]).requires_grad_()])


def test_no_batches():
    with pytest.raises(ValueError, match='dl has no batches'): train(dl=[])


def test_a_loss_that_is_not_finite_names_the_batch_and_puts_the_parameters_back():
    params = net()
    kept = [p.detach().clone() for p in params]
    x, t = digits()
    batches = [(x[:20], t[:20]), (x[20:40]*float('inf'), t[20:40]), (x[40:], t[40:])]
    with pytest.raises(ValueError, match=r'in batch 1 of 3; lr=0.1 is likely too large'):
        train_epoch(net_of(params), .1, params, batches, F.cross_entropy)
    for p, old in zip(params, kept): assert torch.equal(p, old)


def test_an_error_after_a_ruinous_step_puts_the_parameters_back():
    params, (x, t) = net(), digits()
    kept = [p.detach().clone() for p in params]
    with pytest.raises(ValueError, match='targets'):
        train_epoch(net_of(params), .1, params, [(x*float('inf'), t), (x, t[:, :2])], mnist_loss)
    for p, old in zip(params, kept): assert torch.equal(p, old)


def test_a_last_step_that_overflows_is_noticed():
    p = torch.ones(1).requires_grad_()
    with pytest.raises(ValueError, match='in the last step'):
        train_epoch(lambda xb: xb*p*1e30, 1e30, [p], [(torch.ones(1, 1), torch.ones(1, 1))], lambda z, t: z.mean())
    assert p.item() == 1


def test_old_gradients_do_not_leak_in():
    a, b = net(), net()
    calc_grad(*digits(), net_of(a), F.cross_entropy)      # leaves gradients behind
    for params in (a, b): train_epoch(net_of(params), .1, params, BatchLoader(*digits(), 20), F.cross_entropy)
    for p, q in zip(a, b): assert torch.equal(p, q)


def test_params_may_be_a_generator_and_model_a_module():
    layer = nn.Linear(784, 10)
    before = layer.weight.detach().clone()
    train_epoch(layer, .1, layer.parameters(), BatchLoader(*digits(), 20), F.cross_entropy)
    assert not torch.equal(layer.weight, before) and layer.weight.grad is None


# Against PyTorch, and exact.

@pytest.mark.parametrize('device', devices)
def test_an_epoch_is_that_of_torch_optim(device):
    params, (x, t) = net(device), digits(device=device)
    dl = BatchLoader(x, t, 20)                                 # the last batch is short
    theirs = copy.deepcopy([p.detach() for p in params])
    for p in theirs: p.requires_grad_()
    opt = torch.optim.SGD(theirs, lr=.1)
    losses = []
    for xb, tb in dl:
        loss = F.cross_entropy((xb@theirs[0] + theirs[1]).relu()@theirs[2] + theirs[3], tb)
        opt.zero_grad(); loss.backward(); opt.step()
        losses.append(loss.item()*len(xb))
    ours = train_epoch(net_of(params), .1, params, dl, F.cross_entropy)
    assert ours == pytest.approx(sum(losses)/len(x), rel=1e-5)
    for p, q in zip(params, theirs): torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('device', devices)
def test_works_where_its_input_is(device):
    x, t = digits(device=device)
    y = t.argmax(1)
    assert nearest_average(x, average_images(x, y)).device == x.device
    assert show_confusion(nearest_average(x, average_images(x, y)), y).alt
    assert init_params(3, device=device).device.type == device
    assert next(iter(BatchLoader(x, t, 20, shuffle=True)))[0].device == x.device


def test_init_is_the_same_after_the_same_seed():
    torch.manual_seed(3); a = init_params((4, 5))
    torch.manual_seed(3); b = init_params((4, 5))
    assert torch.equal(a, b) and a.is_leaf and a.requires_grad and a.dtype == torch.float32


