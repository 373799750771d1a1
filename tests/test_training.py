"Chapter 09: numbers by hand, PyTorch as a witness, runs that must come out the same bit by bit, bars, interrupts, refusals."
import io, math, os, pty, random, re, subprocess, sys
from functools import partial

import numpy as np
import pytest
import torch
from fastai.basics import DataLoader as FastaiLoader
from torch import nn, tensor
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from mnist_foundations.data import BatchLoader, one_hot
from mnist_foundations.linear import init_params
from mnist_foundations.net import batch_accuracy, simple_net, softmax_cross_entropy
from mnist_foundations.training import (
    Bars, EarlyStopping, History, Hook, Run, TwoLayerNet, check_run, dropout, evaluate, fit, keep_best, one_epoch, predict,
    put_back_best, random_sources, same_random_numbers, set_rates, train_step)

wrong_answers = [   # what a reader might answer, for each exercise of the chapter in order
    'my_numbers = [60, 1/21]', 'def my_clip(gradients, largest): return [g.clamp(-largest, largest) for g in gradients]',
    'my_factors = [.8, .5, .25]', 'def my_loop(*given): return broken_loop(*given)', 'my_marks = [.1, .2, .3, .4, .5]']
devices = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU'))]
on_each_device = pytest.mark.parametrize('device', devices)


def digits(n=200, device='cpu'):
    "n random images with labels."
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 784, generator=g).to(device), torch.randint(10, (n,), generator=g).to(device)


def setting(device='cpu', seed=0, momentum=.9, **net):
    "A small net, its loader (200 images in batches of 32, the last of 8) and its optimizer."
    torch.manual_seed(seed)
    model = TwoLayerNet(hidden=8, device=device, **net)
    return model, BatchLoader(*digits(device=device), 32, shuffle=True), torch.optim.SGD(model.parameters(), .05, momentum)


def values(model): return [t.detach().clone() for t in model.state_dict().values()]

def equal(a, b): return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


class Scale(nn.Module):
    "Two scores, 0 and w times the one pixel."
    def __init__(self, w=0.):
        super().__init__()
        self.w = nn.Parameter(tensor(w))
    def forward(self, xb): return torch.cat([torch.zeros_like(xb), self.w*xb], 1)


def second(scores, yb): return (scores[:, 1]*yb).mean()          # a loss, linear in the second score


def run_of(model, dl, valid_dl=None, lr=1., loss_func=second, **changes):
    opt = torch.optim.SGD(model.parameters(), lr)
    given = dict(epochs=1, schedule=None, metrics=[], augment=None, hooks=[], history=History()) | changes
    return Run(model=model, train_dl=dl, valid_dl=valid_dl, opt=opt, loss_func=loss_func, **given)


def hook_at(moment, func):
    "A hook that calls a function at one moment."
    hook = Hook()
    setattr(hook, moment, func)
    return hook


# Dropout and the net.

def test_dropout_by_hand():
    x = torch.arange(1., 41)
    torch.manual_seed(1)
    kept = torch.empty(40).bernoulli_(.75)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, .25), x*kept.div(.75)) and 20 < kept.sum() < 40
    assert dropout(x, .25, training=False) is x and dropout(x, 0.) is x


def test_dropout_keeps_the_mean_and_draws_from_its_generator():
    x, before = torch.ones(1000, 100), torch.get_rng_state()
    out = dropout(x, .2, generator=torch.Generator().manual_seed(0))
    assert (out == 0).float().mean().item() == pytest.approx(.2, abs=.005)
    assert out.mean().item() == pytest.approx(1, abs=.005) and out.max().item() == pytest.approx(1.25)
    assert torch.equal(torch.get_rng_state(), before)


@on_each_device
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_dropout_keeps_dtype_and_device_and_its_gradient_is_its_mask(device, dtype):
    x = torch.ones(1000, dtype=dtype, device=device, requires_grad=True)
    out = dropout(x, .5)
    out.sum().backward()
    assert (out.dtype, out.device) == (dtype, x.device) and torch.equal(out, x.grad)


@pytest.mark.parametrize('p', [-.1, 1, float('nan')])
def test_a_probability_outside_0_to_1(p):
    for tried in (lambda: dropout(torch.ones(3), p), lambda: TwoLayerNet(dropout=p)):
        with pytest.raises(ValueError, match='expected from 0 to below 1'): tried()


def test_the_start_is_that_of_0_1_0_bit_by_bit():
    torch.manual_seed(3)
    drawn = [torch.randn(784, 7)*(2/784)**.5, torch.randn(7)*0, torch.randn(7, 4)*(2/7)**.5, torch.randn(4)*0]
    after = torch.get_rng_state()
    torch.manual_seed(3)
    net = TwoLayerNet(hidden=7, n_classes=4)
    assert equal(net.parameters(), drawn) and torch.equal(torch.get_rng_state(), after)
    assert [name for name, _ in net.named_parameters()] == ['w1', 'b1', 'w2', 'b2']
    assert net.w1.T.is_contiguous() and net.w2.T.is_contiguous()
    assert net.config == dict(hidden=7, dropout=0., n_pixels=784, n_classes=4) and TwoLayerNet().w1.shape == (784, 500)


def test_the_net_is_simple_net_and_drops_only_while_training():
    net, _, _ = setting(dropout=.5)
    x = digits(5)[0]
    net.b1.data += 1
    torch.testing.assert_close(net.eval()(x), simple_net(x, *net.parameters()))
    torch.manual_seed(0)
    hidden = (x@net.w1 + net.b1).relu()
    want = dropout(hidden, .5)@net.w2 + net.b2
    torch.manual_seed(0)
    torch.testing.assert_close(net.train()(x), want)


@pytest.mark.parametrize('name', ['hidden', 'n_pixels', 'n_classes'])
def test_a_net_of_no_units(name):
    with pytest.raises(ValueError, match=f'{name} is 0; expected a whole number'): TwoLayerNet(**{name: 0})


def test_images_that_do_not_fit_the_net():
    with pytest.raises(ValueError, match='expected'): setting()[0](torch.rand(2, 783))


# A step and an epoch by hand.

def test_a_step_by_hand():
    model = Scale(2.)
    run = run_of(model, [], lr=9., schedule=lambda step: [.5, .25][step], augment=lambda xb: xb*10)
    seen = []
    run.hooks = [hook_at('after_batch', lambda r: seen.append((r.loss.item(), r.model.w.grad.item(), r.step, r.model.w.item())))]
    # ten times the pixel 1, times the target 3, times w = 2: a loss of 60, a slope of 30, a step of 0.5 times that
    assert train_step(run, tensor([[1.]]), tensor([3.])).item() == 60 and model.w.item() == -13
    assert train_step(run, tensor([[2.]]), tensor([1.])).item() == -260 and model.w.item() == -18
    assert seen == [(60, 30, 0, 2), (-260, 20, 1, -13)] and run.step == 2 and model.w.grad is None
    assert not run.loss.requires_grad


def test_every_parameter_that_is_to_be_trained_needs_a_gradient():
    model, other = Scale(), nn.Linear(2, 2)
    run = run_of(model, [])
    run.opt.add_param_group(dict(params=list(other.parameters())))
    with pytest.raises(ValueError, match=r'params\[1\] got no gradient'): train_step(run, tensor([[1.]]), tensor([1.]))
    for p in other.parameters(): p.requires_grad_(False)
    train_step(run, tensor([[1.]]), tensor([1.]))
    assert run.step == 1


def test_rates_by_group():
    a, b = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    opt = torch.optim.SGD([dict(params=[a]), dict(params=[b])], .1)
    set_rates(opt, .3)
    assert [g['lr'] for g in opt.param_groups] == [.3, .3]
    set_rates(opt, (.2, 0.))
    assert [g['lr'] for g in opt.param_groups] == [.2, 0.]
    with pytest.raises(ValueError): set_rates(opt, [.1, .1, .1])
    with pytest.raises(ValueError): set_rates(opt, [.1])


def test_an_epoch_by_hand():
    model = Scale(1.)
    train = [(tensor([[1.], [1.], [1.]]), tensor([1., 1., 1.])), (tensor([[2.]]), tensor([1.]))]
    valid = [(tensor([[1.]]), tensor([8.])), (tensor([[1.], [1.], [1.]]), tensor([0., 0., 0.]))]
    def mean_target(scores, yb): return yb.mean()
    run = run_of(model, train, valid, lr=.5, metrics=[mean_target, partial(batch_accuracy)], schedule=lambda step: .5 - .25*step)
    def hot(scores, yb): return second(scores, yb)
    run.metrics = [mean_target]
    run.history.rows = [dict(epoch=1)]
    row = one_epoch(run, train)
    # w is 1, then 1 - 0.5*1; the losses 1 (three images) and 2*0.5 = 1 (one)
    assert model.w.item() == 0. and row.pop('seconds') > 0
    assert row == dict(epoch=2, train_loss=1., lr=.25, valid_loss=0., mean_target=2.)
    assert [*row] == ['epoch', 'train_loss', 'lr', 'valid_loss', 'mean_target']


def test_uneven_batches_are_weighed_by_their_images():
    model = Scale(1.)
    train = [(tensor([[1.]]*3), tensor([1.]*3)), (tensor([[1.]]), tensor([5.]))]
    row = one_epoch(run_of(model, train, lr=1e-9), train)
    assert row['train_loss'] == pytest.approx((3*1 + 1*5)/4)
    assert evaluate(model, train, second, [])['valid_loss'] == pytest.approx(2, abs=1e-6)


def test_the_highest_rate_is_told():
    model = Scale(1.)
    run = run_of(model, [(tensor([[1.]]), tensor([1.]))], lr=.1)
    run.opt.add_param_group(dict(params=[nn.Parameter(tensor(0.), requires_grad=False)], lr=.7))
    assert one_epoch(run, run.train_dl)['lr'] == .7


@pytest.mark.parametrize('spoil', ['loss', 'last step', 'measuring'])
def test_a_failure_leaves_all_as_before_the_epoch(spoil):
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(784), nn.Linear(784, 10))
    dl, opt = BatchLoader(*digits(), 32, shuffle=True), torch.optim.SGD(net.parameters(), .05, .9)
    fit(net, dl, None, opt, 1)
    def state(): return values(net) + [opt.state[p]['momentum_buffer'].clone() for p in net.parameters()]
    before, steps = state(), []
    def loss_func(scores, yb):
        return softmax_cross_entropy(scores, yb)*(math.nan if spoil == 'loss' and len(steps) == 3 else 1)
    def metric(scores, yb): return 1/(spoil != 'measuring' or not steps)
    def note(run):
        steps.append(run.step)
        if spoil == 'last step' and len(steps) == len(dl): net[1].weight.grad.fill_(math.inf)
    with pytest.raises((ValueError, ZeroDivisionError), match='stopped being finite|division'):
        fit(net, dl, dl if spoil == 'measuring' else None, opt, 2, loss_func, lambda step: 1 + step, metric,
            hooks=hook_at('after_batch', note))
    assert len(steps) == 7 and all(torch.equal(a, b) for a, b in zip(state(), before, strict=True))
    assert opt.param_groups[0]['lr'] == .05 and all(p.grad is None for p in net.parameters()) and not net.training


# Measuring.

def test_predict_by_hand():
    model = Scale(math.log(3))
    assert torch.allclose(predict(model, tensor([[1.], [0.], [-1.]]), 2), tensor([[.25, .75], [.5, .5], [.75, .25]]))
    net, _, _ = setting(dropout=.9)
    x = digits(7)[0]
    torch.testing.assert_close(predict(net, x, 3), simple_net(x, *net.parameters()).softmax(1).detach())
    assert net.training and predict(net, x[:0]).shape == (0, 10)


def test_metrics_have_their_names_and_needs():
    model, dl, _ = setting()
    class Half:
        def __call__(self, scores, yb): return .5
    found = evaluate(model, dl, metrics=[partial(batch_accuracy), Half()])
    assert [*found] == ['valid_loss', 'batch_accuracy', 'Half'] and found['Half'] == pytest.approx(.5)
    for metrics in ([batch_accuracy, batch_accuracy], [lambda s, y: 0., lambda s, y: 1.]):
        with pytest.raises(ValueError, match='expected a name for each'): evaluate(model, dl, metrics=metrics)
    with pytest.raises(ValueError, match='no batches'): evaluate(model, [])
    with pytest.raises(ValueError, match='valid_loss is inf'): evaluate(model, dl, lambda s, y: tensor(math.inf))


def test_measuring_changes_no_mode_and_no_gradient():
    net = nn.Sequential(nn.BatchNorm1d(784), nn.Dropout(), nn.Linear(784, 10))
    net[0].eval()
    before = values(net)
    evaluate(net, BatchLoader(*digits(), 50))
    assert [m.training for m in net] == [False, True, True] and equal(values(net), before)


def test_sources_of_random_numbers_go_on_as_if_nothing_had_been_drawn():
    class Owner: pass
    dl = Owner()
    dl.ours, dl.python, dl.numpy = torch.Generator().manual_seed(1), random.Random(2), np.random.default_rng(3)
    dl.sampler = Owner()
    dl.sampler.generator = torch.Generator().manual_seed(4)
    assert {'torch', 'python', 'numpy', 'dl.ours', 'dl.python', 'dl.numpy', 'dl.sampler.generator'} <= random_sources(dl=dl).keys()
    def draw():
        return [torch.rand(1).item(), random.random(), np.random.rand(), torch.rand(1, generator=dl.ours).item(), dl.python.random(),
                dl.numpy.random(), torch.rand(1, generator=dl.sampler.generator).item()]
    with same_random_numbers(dl=dl): first = draw()
    with pytest.raises(KeyError), same_random_numbers(dl=dl):
        draw()
        raise KeyError
    again = draw()
    assert first == again and all(a != b for a, b in zip(again, draw()))


def loaders(kind, g):
    x, y = digits()
    if kind == 'ours': return BatchLoader(x, y, 32, shuffle=True), BatchLoader(x, y, 50, shuffle=True)
    if kind == 'ours, one generator': return [BatchLoader(x, y, n, shuffle=True, generator=g) for n in (32, 50)]
    data = TensorDataset(x, y)
    if kind == 'torch': return DataLoader(data, 32, shuffle=True), DataLoader(data, 50)
    if kind == 'torch, one generator': return [DataLoader(data, n, shuffle=True, generator=g) for n in (32, 50)]
    if kind == 'torch, one sampler': return [DataLoader(data, n, sampler=RandomSampler(data, generator=g)) for n in (32, 50)]
    return FastaiLoader([*zip(x, y)], 32, shuffle=True), FastaiLoader([*zip(x, y)], 50, shuffle=True)


@pytest.mark.parametrize('kind', ['ours', 'ours, one generator', 'torch', 'torch, one generator', 'torch, one sampler', 'fastai'])
def test_a_validation_set_changes_nothing_bit_by_bit(kind):
    def run(validate):
        torch.manual_seed(0)
        random.seed(0)
        net = nn.Sequential(nn.Linear(784, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(.5), nn.Linear(8, 10))
        train, valid = loaders(kind, torch.Generator().manual_seed(1))
        def noisy(scores, yb): return torch.rand(()) + np.random.rand() + random.random()
        history = fit(net, train, valid if validate else None, torch.optim.SGD(net.parameters(), .1, .9), 3, metrics=noisy)
        return values(net), history['train_loss']
    (a, losses), (b, others) = run(True), run(False)
    assert equal(a, b) and losses == others


# The best epoch.

def test_the_best_by_the_first_metric_or_by_the_loss():
    model = Scale(0.)
    marks = dict(a=[.2, .5, .5, .4], b=[.9, .1, .1, 1.], valid_loss=[.3, .4, .1, .2])
    def a(scores, yb): pass
    def b(scores, yb): pass
    for metrics, best in (([a, b], 2), ([b, a], 4), ([], 3)):
        run = run_of(model, [], [], metrics=metrics)
        for i in range(4):
            model.w.data.fill_(i + 1.)
            run.history.rows.append({name: column[i] for name, column in marks.items()})
            keep_best(run)
        assert run.history.best['epoch'] == best
        put_back_best(run)
        assert model.w.item() == best


def test_a_metric_that_is_no_number_is_worse_than_any_and_without_a_validation_set_nothing_is_best():
    def mark(scores, yb): pass
    run = run_of(Scale(7.), [], [], metrics=[mark])
    for value in (math.nan, -3., math.nan):
        run.history.rows.append(dict(valid_loss=1., mark=value))
        keep_best(run)
    assert run.history.best['epoch'] == 2
    run = run_of(Scale(7.), [])
    run.history.rows.append(dict(train_loss=1.))
    keep_best(run)
    put_back_best(run)
    assert run.history.best is None and run.model.w.item() == 7


def marked(marks):
    "A metric that gives these marks, an epoch each (and one before, when it is tried), and the tensors at each."
    model, dl, opt = setting()
    valid, seen, left = [next(iter(dl))], [], iter([0., *marks])
    def mark(scores, yb):
        seen.append(values(model))
        return next(left)
    return model, dl, valid, opt, mark, seen


@pytest.mark.parametrize('patience, rows, best', [(1, 3, 2), (2, 4, 2), (3, 6, 5)])
def test_early_stopping(patience, rows, best):
    model, dl, valid, opt, mark, seen = marked([.1, .5, .3, .2, .9, .5])
    history = fit(model, dl, valid, opt, 6, metrics=mark, hooks=EarlyStopping(patience))
    assert len(history) == rows and history.best['epoch'] == best and equal(values(model), seen[best])
    assert history.stopped == (f'no better epoch for {patience}' if rows < 6 else '')


def test_without_it_the_tensors_are_the_last_ones():
    model, dl, valid, opt, mark, seen = marked([.5, .3])
    history = fit(model, dl, valid, opt, 2, metrics=mark)
    assert equal(values(model), seen[2]) and equal(history.best['tensors'], seen[1]) and history.stopped == ''
    assert not model.training


def test_buffers_are_part_of_the_best():
    net = nn.Sequential(nn.BatchNorm1d(784), nn.Linear(784, 10))
    _, dl, _ = setting()
    left, seen = iter([0., .9, .1, .1]), []
    def mark(scores, yb):
        seen.append(values(net))
        return next(left)
    fit(net, dl, [next(iter(dl))], torch.optim.SGD(net.parameters(), .1), 3, metrics=mark, hooks=EarlyStopping(5))
    assert equal(values(net), seen[1]) and not equal(seen[1], seen[3])


# Interrupts.

@pytest.mark.parametrize('validate', [True, False])
def test_an_interrupt_leaves_the_best_and_is_raised(validate):
    model, dl, valid, opt, mark, seen = marked([.5, .3, .2])
    history, called = History(), []
    def interrupt(run):
        if run.step == 2*len(dl) + 3: raise KeyboardInterrupt
    hooks = [hook_at('after_batch', interrupt), hook_at('after_fit', called.append)]
    with pytest.raises(KeyboardInterrupt):
        fit(model, dl, valid if validate else None, opt, 3, metrics=mark, hooks=hooks, history=history)
    assert history.stopped == 'interrupted after 2 of 3 epochs' and len(history) == 2 and not called
    assert not model.training and all(p.grad is None for p in model.parameters())
    if validate: assert equal(values(model), seen[1])


# What goes in.

@on_each_device
def test_any_callable_any_optimizer_any_loader(device):
    torch.manual_seed(0)
    w = torch.zeros(784, 10, device=device, requires_grad=True)
    x, y = digits(device=device)
    for loader in (FastaiLoader([*zip(x, y)], 32), DataLoader([*zip(x, y)], 32), [(x, y)]):
        history = fit(lambda xb: xb@w, loader, loader, torch.optim.Adam([w], 1e-3), 2, metrics=None)
        assert len(history) == 2 and history['valid_loss'][1] < history['valid_loss'][0]


def test_fit_is_pytorchs_plain_loop():
    model, dl, opt = setting(dropout=.5)
    history = fit(model, dl, None, opt, 3, schedule=lambda step: .1/(1 + step))
    plain, dl, opt = setting(dropout=.5)
    losses = []
    for step, (xb, yb) in enumerate(batch for _ in range(3) for batch in dl):
        opt.param_groups[0]['lr'] = .1/(1 + step)
        loss = nn.functional.cross_entropy(plain(xb), yb)
        loss.backward()
        opt.step()
        opt.zero_grad()
        losses.append(loss.item()*len(xb))
    assert equal(values(model), values(plain)) and step == 20
    assert history['train_loss'] == pytest.approx([sum(losses[i:i + 7])/200 for i in (0, 7, 14)])
    assert history['lr'] == pytest.approx([.1/7, .1/14, .1/21]) and history['epoch'] == [1, 2, 3]


def test_gradients_that_were_left_over_are_forgotten():
    def trained(left_over):
        model, dl, opt = setting()
        for p in model.parameters(): p.grad = torch.ones_like(p) if left_over else None
        fit(model, dl, None, opt, 1)
        return values(model)
    assert equal(trained(True), trained(False))


def test_labels_rows_and_shares_of_classes_train_alike():
    x, y = digits()
    def trained(targets):
        model, _, opt = setting()
        fit(model, BatchLoader(x, targets, 50), None, opt, 2)
        return values(model)
    torch.testing.assert_close(trained(y), trained(one_hot(y)))
    model, _, opt = setting()
    fit(model, BatchLoader(x, y, 50), None, opt, 2, partial(softmax_cross_entropy, smoothing=.1))
    torch.testing.assert_close(trained(.9*one_hot(y) + .01), values(model))


def test_an_augment_in_place_leaves_the_data():
    model, dl, opt = setting()
    for loader in (dl, BatchLoader(dl.x, dl.y, 32)):
        before = loader.x.clone()
        fit(model, loader, None, opt, 2, augment=lambda xb: xb.mul_(.5))
        assert torch.equal(loader.x, before)


@on_each_device
def test_frozen_groups_and_rates_of_0_and_a_frozen_submodule(device):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)).to(device)
    dl = BatchLoader(*digits(device=device), 32, shuffle=True)
    net[1].eval()
    net[0].bias.requires_grad_(False)
    opt = torch.optim.SGD([dict(params=net[0].parameters(), lr=.1), dict(params=net[1:].parameters(), lr=.2)])
    before = values(net)
    fit(net, dl, None, opt, 1, schedule=lambda step: [0., .1])
    after = values(net)
    same = [torch.equal(a, b) for a, b in zip(before, after)]
    assert same == [True, True, False, False, True, True, True, False, False]     # of BatchNorm the two parameters
    hook = hook_at('before_fit', lambda run: run.model[1].eval())
    fit(net, dl, None, opt, 1, schedule=lambda step: [.1, 0.], hooks=hook)
    same = [torch.equal(a, b) for a, b in zip(after, values(net))]
    assert same == [False] + 8*[True]
    fit(net, dl, None, opt, 1)
    assert not torch.equal(after[4], net[1].running_mean)                          # without the hook it is trained again


def test_what_hooks_are_called_with_and_when():
    model, dl, opt = setting()
    told = []
    class Tells(Hook):
        def before_fit(self, run): told.append(('before', run.step, len(run.history), model.training))
        def after_epoch(self, run):
            told.append(('epoch', run.step, len(run.history), model.training))
            if len(run.history) == 2: run.history.stopped = 'enough'
        def after_fit(self, run): told.append(('after', run.step, len(run.history), model.training))
    history = fit(model, dl, dl, opt, 5, hooks=[Tells(), Hook()])
    assert told == [('before', 0, 0, True), ('epoch', 7, 1, True), ('epoch', 14, 2, True), ('after', 14, 2, True)]
    assert history.stopped == 'enough' and 'Stopped: enough.' in repr(history)


def test_what_a_run_changes():
    net = nn.Sequential(nn.BatchNorm1d(784), nn.Linear(784, 10))
    run = run_of(net, [])
    assert [id(t) for t in run.tensors()] == [id(t) for t in [*net.parameters(), *net.buffers()]]
    w = torch.zeros(2, requires_grad=True)
    run.model, run.opt = (lambda xb: xb), torch.optim.SGD([w], .1)
    assert [id(t) for t in run.tensors()] == [id(w)]


def test_a_history_by_columns():
    history = History()
    assert history['anything'] == [] and len(history) == 0 and list(history) == []
    history.rows = [dict(epoch=1, train_loss=1., lr=.1, valid_loss=2., batch_accuracy=.5, seconds=1.),
                    dict(epoch=2, train_loss=.5, lr=.1, valid_loss=1., batch_accuracy=.75, seconds=1.)]
    assert history['batch_accuracy'] == [.5, .75] and [row['epoch'] for row in history] == [1, 2] and len(history) == 2
    assert history.measured() == ['train_loss', 'valid_loss', 'batch_accuracy']
    with pytest.raises(KeyError, match="'accuracy' is no column; expected one of epoch, train_loss"): history['accuracy']
    told, _ = history._repr_mimebundle_()
    assert 'batch_accuracy goes from 0.5 to 0.75' in told['text/plain'] and told['image/png'][:4] == b'\x89PNG'
    for rows in ([], [dict(epoch=1, train_loss=1., lr=.1, seconds=1.)]):
        history.rows = rows
        assert history._repr_mimebundle_()[0]['image/png'] and repr(history)


# What fit refuses.

@pytest.mark.parametrize('change, kind, said', [
    (dict(epochs=0), ValueError, 'epochs is 0'), (dict(epochs=2.5), ValueError, 'epochs is 2.5'),
    (dict(train_dl=[]), ValueError, 'train_dl has no batches'), (dict(valid_dl=[]), ValueError, 'valid_dl has no batches'),
    (dict(train_dl=iter([])), TypeError, 'train_dl is a list_iterator'), (dict(valid_dl=iter([])), TypeError, 'valid_dl is a'),
    (dict(metrics=[batch_accuracy]*2), ValueError, 'a name for each'),
    (dict(hooks=EarlyStopping(1), valid_dl=None), ValueError, 'valid_dl is None')])
def test_fit_refuses(change, kind, said):
    model, dl, opt = setting()
    before = values(model)
    with pytest.raises(kind, match=said): fit(**dict(model=model, train_dl=dl, valid_dl=dl, opt=opt, epochs=1) | change)
    assert equal(values(model), before)


def test_a_patience_of_none():
    with pytest.raises(ValueError, match='patience is 0'): EarlyStopping(0)


def test_a_metric_that_does_not_fit_fails_before_the_first_step():
    model, dl, opt = setting()
    steps = []
    with pytest.raises(ValueError, match='labels'):
        fit(model, dl, [(xb, yb + 5) for xb, yb in dl], opt, 1, lambda s, y: (s*0).sum(), hooks=hook_at('after_batch', steps.append))
    assert not steps


def test_a_history_with_rows_and_one_rate_for_several():
    model, dl, opt = setting()
    history = fit(model, dl, None, opt, 1)
    with pytest.raises(ValueError, match='history has rows'): fit(model, dl, None, opt, 1, history=history)
    a, b, c, d = model.parameters()
    opt = torch.optim.SGD([dict(params=[a, b]), dict(params=[c, d], lr=.01)], .1)
    fit(model, dl, None, opt, 1)
    with pytest.raises(ValueError, match=r'one rate and opt has \[0.01, 0.1\]'):
        fit(model, dl, None, opt, 1, schedule=lambda step: .1)


def test_labels_in_order_are_warned_of():
    x, y = digits()
    model, _, opt = setting()
    with pytest.warns(UserWarning, match='come in order'): fit(model, BatchLoader(x, y.sort().values, 32), None, opt, 1)


# Precision.

@on_each_device
def test_half_precision_by_a_module_around_the_net(device):
    class Half(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net
        def forward(self, xb):
            with torch.autocast(xb.device.type, torch.bfloat16): return self.net(xb)
    net, dl, opt = setting(device)
    history = fit(Half(net), dl, dl, opt, 2)
    assert history['valid_loss'][1] < 2.5 and net.w1.dtype == torch.float32 and Half(net)(dl.x).dtype == torch.bfloat16


def test_two_halves_of_a_batch_are_the_whole():
    "Two nets, each with half of every batch, that share the mean of their gradients, are one net with whole batches."
    def nets(n): return [setting(momentum=.5)[0].double() for _ in range(n)]
    x, y = digits()
    x = x.double()
    [whole], halves = nets(1), nets(2)
    fit(whole, BatchLoader(x, y, 40), None, torch.optim.SGD(whole.parameters(), .1), 2)
    opts = [torch.optim.SGD(net.parameters(), .1) for net in halves]
    batches = list(zip(x.split(20), y.split(20)))
    class Average(Hook):
        def after_batch(self, run):
            xb, yb = batches[1::2][run.step % 5]
            softmax_cross_entropy(halves[1](xb), yb).backward()
            for p, q in zip(*[net.parameters() for net in halves]):
                p.grad = (p.grad + q.grad)/2
                q.grad = p.grad.clone()
            opts[1].step()
            opts[1].zero_grad()
    fit(halves[0], batches[::2], None, opts[0], 2, hooks=Average())
    for p, q, r in zip(whole.parameters(), *[net.parameters() for net in halves]):
        assert (p - q).abs().max() < 1e-10 and torch.equal(q, r)


# Progress, in a log, in a terminal and in a notebook.

@pytest.mark.parametrize('terminal', [False, True])
def test_bars_go_over_the_epochs_that_are_left(terminal, monkeypatch):
    out, err = io.StringIO(), io.StringIO()
    out.isatty = lambda: terminal
    monkeypatch.setattr(sys, 'stdout', out)
    monkeypatch.setattr(sys, 'stderr', err)
    run = run_of(Scale(), [1, 2, 3], epochs=4)
    run.history.rows = [dict(epoch=1, train_loss=.5, lr=.25, seconds=.125)]
    bars, seen = Bars(run), []
    for epoch in bars:
        seen.append([epoch, *bars.batches()])
        bars.tell(run.history.rows[0])
    bars.close()
    assert seen == [[epoch, 1, 2, 3] for epoch in (1, 2, 3)]
    said = (out if terminal else err).getvalue()
    assert said.count('epoch 1 of 4: train_loss 0.5000\n') == 3 and ('█' in said) == terminal
    assert (err if terminal else out).getvalue() == ''


SHORT_RUN = '''
import torch
from mnist_foundations.data import BatchLoader
from mnist_foundations.training import *
torch.manual_seed(0)
net = TwoLayerNet(hidden=2)
dl = BatchLoader(torch.rand(20, 784), torch.randint(10, (20,)), 10, shuffle=True)
history = fit(net, dl, dl, torch.optim.SGD(net.parameters(), .1), 2)
'''

def test_progress_in_a_log_is_a_line_an_epoch():
    ended = subprocess.run([sys.executable, '-c', SHORT_RUN], capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout == ''
    lines = ended.stderr.splitlines()
    assert [line[:13] for line in lines] == ['epoch 1 of 2:', 'epoch 2 of 2:']
    for line in lines: assert re.fullmatch(r'epoch . of 2: train_loss \d\.\d{4}, valid_loss \d\.\d{4}, batch_accuracy [01]\.\d{4}', line)


def in_a_terminal(code):
    "What a process shows in a terminal of its own, and how it ended."
    master, slave = pty.openpty()
    child = subprocess.Popen([sys.executable, '-c', code], stdin=slave, stdout=slave, stderr=slave, close_fds=True)
    os.close(slave)
    shown = b''
    while True:
        try: part = os.read(master, 65536)
        except OSError: break                                # the other end is closed
        if not part: break
        shown += part
    os.close(master)
    return shown.decode(), child.wait()


def test_progress_in_a_terminal_is_a_bar_and_a_line_an_epoch():
    shown, code = in_a_terminal(SHORT_RUN)
    assert code == 0 and '█' in shown and 'Epoch 2/2' in shown, shown
    assert shown.count('epoch 1 of 2: train_loss') == 1 and shown.count('epoch 2 of 2: train_loss') == 1


def test_progress_in_a_notebook_takes_itself_away():
    nbformat = pytest.importorskip('nbformat', reason='needs the development tools, and not only the package')
    from nbclient import NotebookClient
    cut = 'def cut(run):\n    if run.step == 1: raise KeyboardInterrupt\nclass Cut(Hook): after_batch = lambda self, run: cut(run)\n' \
          'try: fit(net, dl, None, torch.optim.SGD(net.parameters(), .1), 2, hooks=Cut())\nexcept KeyboardInterrupt: print("cut")'
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in (SHORT_RUN, cut)])
    NotebookClient(nb, timeout=60, kernel_name='python3').execute()
    for cell in nb.cells:
        assert not any(out.get('name') == 'stderr' for out in cell.outputs)
        for out in cell.outputs: assert '<progress' not in out.get('data', {}).get('text/html', ''), out
    assert nb.cells[1].outputs[-1]['text'] == 'cut\n'
