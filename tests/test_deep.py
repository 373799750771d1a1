"Chapter 06: normalisation, deep nets and what looks into them, by hand and against PyTorch."
import math

import pytest
import torch
from torch import nn, tensor
from torch.testing import assert_close

from long_experiments import needs_all, piles, recorded_rows, script
from mnist_foundations.deep import BatchNorm, DeepNet, dead_share, layer_signals, show_signals, update_ratios
from mnist_foundations.linear import train_epoch
from mnist_foundations.net import softmax_cross_entropy, validate_epoch
from mnist_foundations.data import BatchLoader

devices = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU'))]
on_each_device = pytest.mark.parametrize('device', devices)

wrong_answers = ['my_stds = [120, 1/400]', 'my_running = [.76, 1 + .1*8/3]',
                 'def my_layer_norm(x): return (x - x.mean(1, keepdim=True))/(x.var(1, keepdim=True) + 1e-5).sqrt()',
                 'my_gains = [1, .5, math.sqrt(2)]', 'my_options = dict(gain=1e-3)']


def some(*shape, device='cpu'):
    return (3 + 2*torch.randn(*shape, generator=torch.Generator().manual_seed(0))).to(device)

def batch(device='cpu'):
    g = torch.Generator().manual_seed(1)
    return torch.rand(12, 6, generator=g).to(device), torch.randint(4, (12,), generator=g).to(device)

def small(device='cpu', **options):
    torch.manual_seed(0)
    return DeepNet([6, 5, 5, 4], **options).to(device)


# Normalisation.

def test_normalised_by_hand():
    norm = BatchNorm(1, momentum=.5, eps=4)
    norm.weight.data, norm.bias.data = tensor([2.]), tensor([1.])
    out = norm(tensor([[1.], [3.], [5.], [7.]]))                     # mean 4, variance 5, and 5 + 4 is 9
    assert_close(out, tensor([[-1.], [1/3], [5/3], [3.]]))           # twice -3, -1, 1, 3 over 3, plus 1
    assert_close(norm.running_mean, tensor([2.]))                    # half the way from 0 to 4
    assert_close(norm.running_var, tensor([.5 + .5*20/3]))           # half the way from 1 to 20/3
    norm.eval()
    assert_close(norm(tensor([[2.]])), tensor([[1.]]))               # a single image, at the running mean
    assert_close(norm.running_mean, tensor([2.]))


@on_each_device
@pytest.mark.parametrize('theirs, shape', [(nn.BatchNorm1d, (5, 3)), (nn.BatchNorm1d, (2, 3)), (nn.BatchNorm2d, (4, 3, 2, 5)),
                                           (nn.BatchNorm2d, (1, 3, 2, 5))])
def test_normalises_as_pytorch_does_in_both_modes(theirs, shape, device):
    ours, theirs = BatchNorm(3).double().to(device), theirs(3).double().to(device)
    for layer in (ours, theirs): layer.weight.data, layer.bias.data = some(3, device=device).double(), some(3, device=device).double() - 1
    for seed, training in enumerate((True, True, False, True, False)):
        ours.train(training), theirs.train(training)
        xb = (some(*shape).double()*(seed + 1) + seed).to(device)
        a, b = xb.clone().requires_grad_(), xb.clone().requires_grad_()
        outs = ours(a), theirs(b)
        for out in outs: out.sin().sum().backward()
        assert_close(*outs)
        assert_close(a.grad, b.grad)
        assert_close(ours.weight.grad, theirs.weight.grad)
        assert_close(ours.bias.grad, theirs.bias.grad)
        assert_close(ours.running_mean, theirs.running_mean)
        assert_close(ours.running_var, theirs.running_var)
        assert not ours.running_mean.requires_grad


def test_normalisation_has_pytorchs_defaults_and_names():
    ours, theirs = BatchNorm(3), nn.BatchNorm1d(3)
    assert (ours.momentum, ours.eps) == (theirs.momentum, theirs.eps)
    assert set(theirs.state_dict()) - set(ours.state_dict()) == {'num_batches_tracked'}
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    assert len(list(ours.parameters())) == 2


def test_one_image_is_refused_in_training_and_taken_afterwards():
    norm = BatchNorm(3)
    with pytest.raises(ValueError, match='1 value a channel'): norm(torch.ones(1, 3))
    assert torch.equal(norm.running_mean, torch.zeros(3))
    assert norm.eval()(torch.ones(1, 3)).shape == (1, 3)


def test_a_constant_unit_gives_zero_and_no_nan():
    assert torch.equal(BatchNorm(2)(torch.full((4, 2), 7.)), torch.zeros(4, 2))


# The net.

def test_a_net_by_hand():
    net = DeepNet([2, 2, 2, 1], shortcut=True)
    values = [[[1., -1.], [0., 2.]], [[1., 0.], [1., -1.]], [[1.], [10.]], [0., 1.], [0., .5], [-3.]]
    for p, value in zip(net.parameters(), values, strict=True): p.data = tensor(value)
    first, second, scores = net.layers(tensor([[1., 2.]]))
    assert torch.equal(first, tensor([[1., 4.]]))                    # sums 1 and -1 + 4 + 1
    assert torch.equal(second, tensor([[6., 4.]]))                   # sums 5 and -4 + .5, then 1 and 4 added
    assert torch.equal(scores, tensor([[43.]])) and torch.equal(net(tensor([[1., 2.]])), scores)
    net.shortcut = False
    assert torch.equal(net.layers(tensor([[1., 2.]]))[1], tensor([[5., 0.]]))


def test_defaults_are_plain():
    net = DeepNet([6, 5, 4])
    assert not net.shortcut and net.between is torch.relu and not any(isinstance(m, BatchNorm) for m in net.modules())
    assert all((b == 0).all() for b in net.biases)


@pytest.mark.parametrize('gain', [1., 4.])
def test_the_start_has_its_spread_and_centre(gain):
    torch.manual_seed(0)
    net = DeepNet([400, 300, 200, 100], torch.sigmoid, gain=gain, centre=.5)
    for n, w in zip((400, 300, 200), net.weights):
        assert w.std().item() == pytest.approx(gain/math.sqrt(n), rel=.02) and abs(w.mean().item()) < .01*gain
    assert (net.biases[0] == 0).all() and len(net.biases[0]) == 300
    for w, b in zip(net.weights[1:], net.biases[1:]):
        assert_close(torch.full((1, len(w)), .5)@w + b, torch.zeros(1, len(b)), atol=1e-4, rtol=0)
    assert all(p.requires_grad and p.is_leaf for p in net.parameters())


def test_default_gain_is_one():
    torch.manual_seed(0)
    assert DeepNet([400, 300, 10]).weights[0].std().item() == pytest.approx(1/20, rel=.02)


@on_each_device
@pytest.mark.parametrize('shortcut', [False, True])
def test_a_normalised_net_against_pytorch(shortcut, device):
    net = small(device, between=torch.tanh, norm=True, shortcut=shortcut)
    assert [type(m).__name__ for m in net.norms] == ['BatchNorm']*2
    xb, _ = batch(device)
    (w1, w2, w3), (b1, b2, b3) = net.weights, net.biases
    one = nn.functional.batch_norm(xb@w1 + b1, None, None, training=True).tanh()
    two = nn.functional.batch_norm(one@w2 + b2, None, None, training=True).tanh() + (one if shortcut else 0)
    for ours, theirs in zip(net.layers(xb), (one, two, two@w3 + b3), strict=True): assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('options', [dict(), dict(norm=True), dict(shortcut=True), dict(norm=True, shortcut=True)])
def test_nets_learn_with_train_epoch(options):
    net, (xb, yb) = small(**options), batch()
    dl = BatchLoader(xb, yb, 12)
    losses = [train_epoch(net, .3, net.parameters(), dl, softmax_cross_entropy) for _ in range(60)]
    assert losses[-1] < losses[0] - .2
    before = {name: value.clone() for name, value in net.state_dict().items()}
    validate_epoch(net, dl)
    assert net.training and all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# Looking inside.

def test_signals_are_activations_and_their_gradients_and_leave_no_trace():
    net, (xb, yb) = small(between=torch.tanh, norm=True), batch()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    activations, gradients = layer_signals(net, xb, yb, softmax_cross_entropy)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters()) and not activations[0].requires_grad
    for ours, theirs in zip(activations, net.layers(xb)[:-1], strict=True): assert_close(ours, theirs)
    scores = activations[-1]@net.weights[-1] + net.biases[-1]
    d_scores = (scores.softmax(1) - nn.functional.one_hot(yb, 4))/12
    assert_close(gradients[-1], d_scores@net.weights[-1].T)
    first = activations[0].clone().requires_grad_()                     # the rest of the way, written out
    last = net.between(net.norms[1](first@net.weights[1] + net.biases[1]))
    softmax_cross_entropy(last@net.weights[2] + net.biases[2], yb).backward()
    assert_close(gradients[0], first.grad)


def test_update_ratios_by_hand_and_without_trace():
    net, (xb, yb) = small(norm=True), batch()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    ratios = update_ratios(net, .5, xb, yb, softmax_cross_entropy)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    softmax_cross_entropy(net(xb), yb).backward()
    old = [w.detach().clone() for w in net.weights]
    for w in net.weights: w.data -= .5*w.grad
    assert ratios == pytest.approx([((w - o).std()/o.std()).item() for w, o in zip(net.weights, old, strict=True)], rel=1e-3)


def test_dead_units_are_those_that_no_image_wakes():
    assert dead_share(tensor([[0., 1., 0., -1.], [0., 0., 2., -2.]])) == .5
    assert dead_share(torch.ones(3, 2)) == 0 and dead_share(torch.zeros(3, 2)) == 1


def test_histograms_have_a_row_a_signal_and_their_names():
    signals = layer_signals(small(), *batch(), softmax_cross_entropy)
    picture = show_signals({'before': signals, 'after': signals}, 'two nets')
    axes = picture.fig.axes
    assert picture.alt == 'two nets' and len(axes) == 4*2
    assert [axes[i].get_ylabel() for i in (0, 2, 4, 6)] == ['before', 'after']*2
    assert axes[0].get_title() == 'layer 1' and axes[5].get_xlabel() == 'gradient, as a power of ten'
    counts = [sum(bar.get_height() for bar in ax.patches) for ax in axes]
    assert counts[0] == 12*5 and counts[4] == (signals[1][0] != 0).sum()
    assert axes[0].get_xlim() == axes[3].get_xlim()
    drawn = signals[0][0] - signals[0][0].mean(0)               # what differs from image to image
    widest = max((t - t.mean(0)).abs().max() for t in signals[0])
    assert max(bar.get_x() + bar.get_width() for bar in axes[0].patches) <= widest + 1e-5
    left, width = axes[0].patches[0].get_x(), axes[0].patches[0].get_width()
    for bar in axes[0].patches[1:-1]:
        inside = (drawn > bar.get_x() + 1e-6) & (drawn < bar.get_x() + width - 1e-6)
        assert bar.get_height() >= inside.sum()


# The experiment.

def test_recorded_runs_are_complete_and_rates_come_from_another_seed():
    deep, rows = script('deep'), recorded_rows('deep')
    report = rows[rows.purpose == 'report']
    assert set(report.seed) == {0, 1, 2} and not set(report.seed) & set(rows[rows.purpose == 'search'].seed)
    assert len(report) == 3*len(deep.NETS) and len(rows[rows.purpose == 'search']) == len(deep.RATES)*len(deep.NETS)
    assert report.groupby('net').lr.first().to_dict() == deep.best_rates(rows)


@needs_all
def test_a_recorded_row_comes_out_again():
    split = piles()
    for row in recorded_rows('deep').query("purpose == 'short'").itertuples():
        again = script('deep').one_run(split, 'short', row.net, row.lr, row.seed, row.epochs)
        assert again['valid_accuracy'] == pytest.approx(row.valid_accuracy, abs=.01)
