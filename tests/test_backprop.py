"Chapter 05: gradients of whole layers against numbers worked by hand, single numbers, PyTorch and nudges; epochs; misfits."
import math

import pytest
import torch
import torch.nn.functional as F
from torch import tensor
from torch.testing import assert_close

from mnist_foundations.backprop import backprop_epoch, categorical_cross_entropy, sigmoid_net, sigmoid_net_grads
from mnist_foundations.data import BatchLoader, one_hot
from mnist_foundations.linear import train_epoch

devices = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU'))]
on_each_device = pytest.mark.parametrize('device', devices)

wrong_answers = ['my_shapes = [30, 784, 64, 30, 64, 10]', 'my_rows = [.2, -.5, .3, .2, -.5, .3]',
                 'def my_grads(xb, yb, w1, b1, w2, b2): return broken_grads(xb, yb, w1, b1, w2, b2)',
                 'def my_loss(a, y): return (a - y)**2/2',
                 'def my_six(*given): return [torch.zeros_like(p) for p in given[2:]]']


def batch(device='cpu', n=50, dtype=torch.float64):
    "Random images, one-hot targets and parameters; all sizes differ, so no axis can stand for another."
    g = torch.Generator().manual_seed(0)
    x, t = torch.rand(n, 12, generator=g), one_hot(torch.randint(5, (n,), generator=g), 5)
    params = [torch.randn(s, generator=g) for s in ((12, 7), 7, (7, 5), 5)]
    return x.to(device, dtype), t.to(device, dtype), [p.to(device, dtype) for p in params]


def scores_of(params): return lambda xb: (xb@params[0] + params[1]).sigmoid()@params[2] + params[3]


# By hand.

# one image, one pixel of 2; the sum is 2·0.5 - 1 = 0, so the hidden activation is 1/2 and its slope 1/4;
# the scores are 0 and log 3, the probabilities 1/4 and 3/4, and class 0 is right
ONE = tensor([[2.]]), tensor([[1., 0.]]), [tensor([[.5]]), tensor([-1.]), tensor([[0., 2.]]), tensor([0., math.log(3) - 1])]


def test_a_net_by_hand():
    x, t, params = ONE
    probabilities, hidden = sigmoid_net(x, *params)
    assert_close(hidden, tensor([[.5]]))
    assert_close(probabilities, tensor([[.25, .75]]))
    assert categorical_cross_entropy(probabilities, t).item() == pytest.approx(math.log(4))


def test_gradients_by_hand():
    x, t, params = ONE
    d_w1, d_b1, d_w2, d_b2 = sigmoid_net_grads(x, t, *sigmoid_net(x, *params), params[2])
    assert_close(d_b2, tensor([-.75, .75]))              # probability minus target
    assert_close(d_w2, tensor([[-.375, .375]]))          # times the hidden activation
    assert_close(d_b1, tensor([.375]))                   # .75·2 back through the weight, times the slope of 1/4
    assert_close(d_w1, tensor([[.75]]))                  # times the pixel


def test_a_step_by_hand():
    x, t, params = ONE
    params = [p.clone() for p in params]
    assert backprop_epoch(2., params, [(x, t)]) == pytest.approx(math.log(4))
    expected = tensor([[-1.]]), tensor([-1.75]), tensor([[.75, 1.25]]), tensor([1.5, math.log(3) - 2.5])
    for p, q in zip(params, expected, strict=True): assert_close(p, q)


def test_the_loss_is_a_mean_over_the_images():
    p = tensor([[.5, .25, .25], [.1, .1, .8]])
    assert categorical_cross_entropy(p, tensor([1, 2])).item() == pytest.approx((math.log(4) - math.log(.8))/2)
    assert categorical_cross_entropy(p, one_hot([1, 2], 3)) == categorical_cross_entropy(p, tensor([1, 2]))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16])
def test_a_probability_of_zero_costs_as_much_as_the_smallest_normal_number(dtype):
    loss = categorical_cross_entropy(tensor([[0., 1.]], dtype=dtype), tensor([0]))
    assert loss.item() == pytest.approx(-math.log(torch.finfo(dtype).tiny), rel=1e-3)


# Against PyTorch, and nudges.

@on_each_device
@pytest.mark.parametrize('n', [1, 2, 50])
def test_gradients_are_those_of_autograd(device, n):
    x, t, params = batch(device, n)
    probabilities, hidden = sigmoid_net(x, *params)
    asked = [q.clone().requires_grad_() for q in params]
    loss = F.cross_entropy(scores_of(asked)(x), t)
    assert_close(categorical_cross_entropy(probabilities, t), loss.detach())
    expected = torch.autograd.grad(loss, asked)
    for targets in (t, t.argmax(1)):
        for ours, theirs in zip(sigmoid_net_grads(x, targets, probabilities, hidden, params[2]), expected, strict=True):
            assert_close(ours, theirs, atol=1e-15, rtol=1e-12)


def test_gradients_are_those_of_nudges():
    x, t, params = batch(n=4)
    def loss(): return categorical_cross_entropy(sigmoid_net(x, *params)[0], t).item()
    for p, grad in zip(params, sigmoid_net_grads(x, t, *sigmoid_net(x, *params), params[2]), strict=True):
        flat, i = p.view(-1), p.numel()//2
        flat[i] += 1e-5
        up = loss()
        flat[i] -= 2e-5
        down = loss()
        flat[i] += 1e-5
        assert grad.reshape(-1)[i].item() == pytest.approx((up - down)/2e-5, rel=1e-6)


def test_gradients_are_those_of_single_numbers():
    autograd = pytest.importorskip('mnist_foundations.autograd')
    x, t, (w1, b1, w2, b2) = batch(n=2)
    layers = [autograd.Layer(12, 7, 'sigmoid'), autograd.Layer(7, 5, 'none')]
    for layer, w, b in zip(layers, (w1, w2), (b1, b2)):
        for neuron, column, bias in zip(layer.neurons, w.T.tolist(), b.tolist()):
            neuron.weights, neuron.bias = [autograd.Value(v) for v in column], autograd.Value(bias)
    net = autograd.Net(*layers)
    sum(autograd.cross_entropy(net(row), k)/2 for row, k in zip(x.tolist(), t.argmax(1).tolist())).backward()
    d_w1, d_b1, d_w2, d_b2 = sigmoid_net_grads(x, t, *sigmoid_net(x, w1, b1, w2, b2), w2)
    for layer, d_w, d_b in zip(layers, (d_w1, d_w2), (d_b1, d_b2)):
        assert_close(tensor([[w.grad for w in n.weights] for n in layer.neurons]).double().T, d_w, atol=1e-7, rtol=1e-6)
        assert_close(tensor([n.bias.grad for n in layer.neurons]).double(), d_b, atol=1e-7, rtol=1e-6)


def test_nothing_that_was_given_is_changed():
    x, t, params = batch()
    probabilities, hidden = sigmoid_net(x, *params)
    given = [x, t, probabilities, hidden, params[2]]
    before = [v.clone() for v in given]
    sigmoid_net_grads(*given)
    for v, was in zip(given, before): assert torch.equal(v, was)


def test_autograd_goes_through_the_net_by_hand():
    x, t, params = batch()
    asked = [p.clone().requires_grad_() for p in params]
    categorical_cross_entropy(sigmoid_net(x, *asked)[0], t).backward()
    for a, g in zip(asked, sigmoid_net_grads(x, t, *sigmoid_net(x, *params), params[2])): assert_close(a.grad, g)


def test_large_scores_are_safe():
    x, t, params = batch(dtype=torch.float32)
    p, h = sigmoid_net(x, *[q*1e4 for q in params])
    assert p.isfinite().all() and h.isfinite().all() and categorical_cross_entropy(p, t).isfinite()
    assert all(g.isfinite().all() for g in sigmoid_net_grads(x, t, p, h, params[2]))


# Epochs.

@on_each_device
def test_an_epoch_is_that_of_train_epoch(device):
    x, t, params = batch(device)
    asked = [p.clone().requires_grad_() for p in params]
    dl = BatchLoader(x, t, 20)                           # the last batch is short
    ours, theirs = backprop_epoch(.5, params, dl), train_epoch(scores_of(asked), .5, asked, dl, F.cross_entropy)
    assert ours == pytest.approx(theirs, rel=1e-6)
    for p, q in zip(params, asked): assert_close(p, q.detach())


def test_parameters_that_ask_for_gradients_may_be_given_and_get_none():
    x, t, params = batch()
    asked = [p.clone().requires_grad_() for p in params]
    assert backprop_epoch(.5, asked, [(x, t)]) == backprop_epoch(.5, params, [(x, t)])
    for p, q in zip(params, asked): assert q.grad is None and q.requires_grad and torch.equal(p, q)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    x, t, params = batch(dtype=dtype)
    loss = backprop_epoch(.1, params, [(x, t.float())]*100)
    assert 0 < loss < 4 and all(p.dtype == dtype for p in params)


def test_labels_in_order_are_told():
    x, t, params = batch(dtype=torch.float32)
    order = t.argmax(1).argsort()
    with pytest.warns(UserWarning, match='labels come in order'): backprop_epoch(.1, params, BatchLoader(x[order], t[order], 10))


# Misfits.

def test_a_failed_epoch_leaves_the_parameters():
    x, t, params = batch()
    kept = [p.clone() for p in params]
    bad = x.clone()
    bad[30] = math.inf
    for batches, message in (
            ([(x[:20], t[:20]), (bad[20:40], t[20:40]), (x[40:], t[40:])], 'in batch 1 of 3; lr=0.1 is likely too large'),
            ([(x, t), (x, t[:, :2])], 'targets'), ([], 'dl has no batches')):
        with pytest.raises(ValueError, match=message): backprop_epoch(.1, params, batches)
        for p, was in zip(params, kept): assert torch.equal(p, was)
    with pytest.raises(ValueError, match='lr is -1; expected a positive number'): backprop_epoch(-1, params, [(x, t)])


def test_what_does_not_fit_is_named():
    x, t, params = batch()
    p, h = sigmoid_net(x, *params)
    for hidden, w2, message in ((h[:, :1], params[2], 'hidden has the shape .* and w2'), (h, params[2][:, :4], 'a row of probabilities'),
                                (h[:5], params[2], 'xb has 50 rows and hidden has 5')):
        with pytest.raises(ValueError, match=message): sigmoid_net_grads(x, t, p, hidden, w2)
    with pytest.raises(ValueError, match=r'xb has the shape \(50, 11\) and w1 \(12, 7\)'): sigmoid_net(x[:, 1:], *params)
    with pytest.raises(ValueError, match=r'w2 \(5, 7\)'): sigmoid_net(x, *params[:2], params[2].T, params[3])
    with pytest.raises(ValueError, match='a single 1'): categorical_cross_entropy(p, 0*t)


@pytest.mark.parametrize('scores', [[[.5, -.1]], [[1.1, 0.]]])
def test_scores_are_no_probabilities(scores):
    with pytest.raises(ValueError, match='are they scores'): categorical_cross_entropy(tensor(scores), tensor([0]))


@pytest.mark.parametrize('p', [[[0., 1.]], [[1., 0.]], [[1.01, 0.]], [[.4, .6]]])
def test_the_ends_are_probabilities(p): assert categorical_cross_entropy(tensor(p), tensor([1])) >= 0
