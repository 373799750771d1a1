"Appendix on keeping: a run that goes on is the run that was begun, or is refused; models and nets in files."
import json, math, random, signal, subprocess, sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from fastai.basics import DataLoader      # here, since it draws random numbers while it is imported
from hypothesis import given, settings, strategies as st
from torch import nn

from mnist_foundations import keeping, processes
from mnist_foundations.autograd import Layer, Net
from mnist_foundations.data import BatchLoader
from mnist_foundations.keeping import Checkpoint, load_model, load_net, save_model, save_net
from mnist_foundations.net import batch_accuracy, softmax_cross_entropy
from mnist_foundations.optimizers import SGD, Adam, one_cycle
from mnist_foundations.training import EarlyStopping, Hook, TwoLayerNet, dropout, fit


def digits(n=50, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 9, generator=g), torch.randint(3, (n,), generator=g)


class Cut(Hook):
    "Ends a run before a step, as an error or the stop button would."
    def __init__(self, step=None, how=KeyboardInterrupt): self._step, self._how = step, how
    def after_batch(self, run):
        if run.step == self._step: raise self._how


class Noise:
    def __init__(self, size, generator): self.size, self.generator = size, generator
    def __call__(self, xb):
        if isinstance(self.generator, torch.Generator): return xb + self.size*torch.rand(xb.shape, generator=self.generator)
        if isinstance(self.generator, random.Random): return xb + self.size*self.generator.random()
        return xb + self.size*torch.from_numpy(self.generator.random(xb.shape)).float()


class Averages(Hook):
    "A hook with a state: the mean of the tensors so far, which the last epoch leaves in the net."
    def __init__(self): self._mean = None
    def after_epoch(self, run):
        if self._mean is None: self._mean = [p.detach().clone() for p in run.params()]
        for m, p in zip(self._mean, run.params()): m.lerp_(p.detach(), .3)
    def after_fit(self, run):
        with torch.no_grad():
            for m, p in zip(self._mean, run.params()): p.copy_(m)
    def state_dict(self): return dict(mean=self._mean)
    def load_state_dict(self, state): self._mean = state['mean']


class Halving(Hook):
    def after_epoch(self, run):
        for group in run.opt.param_groups: group['lr'] /= 2


def two_layers(): return TwoLayerNet(5, .3, 9, 3)
def normalised(): return nn.Sequential(nn.Linear(9, 5), nn.BatchNorm1d(5), nn.Dropout(.2), nn.ReLU(), nn.Linear(5, 3))
def frozen():
    model = normalised()
    model[0].requires_grad_(False)
    return model

def two_groups(kind):
    def make(params):
        first, *others = [p for p in params if p.requires_grad]
        return kind([dict(params=[first], lr=.01), dict(params=others)])
    return make

def own(x, y, seed): return BatchLoader(x, y, 16, shuffle=True, generator=torch.Generator().manual_seed(seed))
def shared(x, y, seed): return BatchLoader(x, y, 16, shuffle=True, drop_last=True)
def fastais(x, y, seed): return DataLoader([*zip(x, y)], 16, shuffle=True)
def torchs(x, y, seed):
    data = torch.utils.data.TensorDataset(x, y)
    return torch.utils.data.DataLoader(data, 16, True, generator=torch.Generator().manual_seed(seed))
def sampled(x, y, seed):
    g = torch.Generator().manual_seed(seed)
    sampler = torch.utils.data.WeightedRandomSampler(torch.arange(1., 51), 40, generator=g)
    return torch.utils.data.DataLoader([*zip(x, y)], 16, sampler=sampler)

models = [two_layers, normalised, frozen]
optimizers = [partial(SGD, lr=.1), partial(SGD, lr=.1, momentum=.9, nesterov=True), partial(Adam, lr=.01),
              partial(torch.optim.Adam, lr=.01, amsgrad=True), partial(torch.optim.AdamW, lr=.01),
              two_groups(partial(torch.optim.SGD, lr=.1, momentum=.5)), partial(torch.optim.RMSprop, lr=.01)]
loaders = [own, shared, fastais, torchs, sampled]
augments = [lambda seed: None, lambda seed: Noise(.1, torch.Generator().manual_seed(seed)),
            lambda seed: partial(Noise.__call__, Noise(.2, np.random.default_rng(seed))),
            lambda seed: [Noise(.1, random.Random(seed))][0].__call__, lambda seed: lambda xb: dropout(xb, .2),
            lambda seed: closure(torch.Generator().manual_seed(seed))]
hook_lists = [lambda: [], lambda: [EarlyStopping(1)], lambda: [Averages()], lambda: [Halving(), EarlyStopping(2)]]

def closure(g):
    def noisy(xb): return xb + torch.rand(xb.shape, generator=g)
    return noisy


def by_hand(factor): return lambda xb: xb*factor


def seed_all(seed):
    for put in torch.manual_seed, random.seed, np.random.seed: put(seed)


def train(model, opt, loader, augment, hooks, epochs=4, seed=0, cut=Cut(), path=None):
    "A run whose own seeds matter only where it is begun, as in a new process."
    seed_all(seed)
    net, (x, y) = model(), digits()
    hooks = [cut, *hooks(), *([Checkpoint(path)] if path else [])]
    history = fit(net, loader(x, y, seed), [(x[:20], y[:20])], opt(net.parameters()), epochs,
                  augment=augment(seed), hooks=hooks)
    drawn = torch.rand(1).item(), random.random(), np.random.rand()        # where the random numbers are now
    return [*net.state_dict().values()], [{k: v for k, v in row.items() if k != 'seconds'} for row in history], history, drawn


def same(a, b): return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


# How things are packed and described.

def test_what_is_packed_comes_back_with_its_kinds_and_strides():
    t = torch.arange(6.).view(2, 3).T
    value = dict(a=[1, (2., None), {3: 'x'}], b=(t, torch.ones(()), torch.ones(1, dtype=torch.bfloat16).expand(3)), c=np.float32(.5))
    tensors = {}
    back = keeping._unpack(json.loads(json.dumps(keeping._pack(value, tensors))), tensors)
    assert back['a'] == value['a'] and back['c'] == .5 and same(back['b'], value['b'])
    assert back['b'][0].stride() == t.stride() and back['b'][2].dtype == torch.bfloat16 and isinstance(back['b'], tuple)


def described(thing): return json.dumps(keeping._described(thing, {}))

class Holder:
    def __init__(self, thing): self.thing, self._hidden = thing, random.random()

@pytest.mark.parametrize('a, b', [
    (1, 2), ([1, 2], [2, 1]), (torch.zeros(2), torch.zeros(2, 1)), (torch.zeros(1), torch.zeros(1).double()),
    (np.zeros(2), np.ones(2)), (torch.ones(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16)),
    (lambda x: x + 1, lambda x: x + 2), (lambda x: x.cos(), lambda x: x.sin()), (lambda x: [x + 1 for _ in x], lambda x: [x + 2 for _ in x]),
    (lambda x, k=1: x, lambda x, k=2: x), (lambda x, *, k=1: x, lambda x, *, k=2: x), (by_hand(1), by_hand(2)),
    (lambda x: x in {1, 2}, lambda x: x in {1, 3}), (partial(max, 1), partial(max, 2)), (partial(max, k=1), partial(max, k=2)),
    (torch.relu, torch.sigmoid), (Path('a'), Path('b')), (torch.float32, torch.float64), ({1, 2}, {1, 3}),
    (Noise(.1, None).__call__, Noise(.2, None).__call__), (nn.Dropout(.1), nn.Dropout(.2)), (dict(a=1), dict(b=1)),
    (nn.Sequential(nn.ReLU()), nn.Sequential(nn.Tanh())), ([(torch.ones(1), i) for i in range(900)], [(torch.ones(1), i + (i > 800)) for i in range(900)])])
def test_settings_that_differ_are_described_differently_and_equal_ones_alike(a, b):
    assert described(a) != described(b) and described(Holder(a)) != described(Holder(b)) != described(b)
    assert described(Holder(a)) == described(Holder(a)) and len(described(a)) < 10_000


def test_things_that_hold_themselves_and_functions_that_call_themselves_are_described():
    loop = Holder(1)
    loop.thing = loop
    def again(n): return again(n - 1)
    def late(): return unbound
    assert 'Holder' in described(loop) and 'again' in described(again) and 'late' in described(late)
    if loop is None: unbound = 1
    trained = torch.ones(2, requires_grad=True)
    assert described(trained) == described(2*trained.detach().requires_grad_())


@pytest.mark.parametrize('there, here, said', [
    (dict(a=1), dict(a=2), ['a is 1 there and 2 here']), (dict(a=dict(b=[1, 2])), dict(a=dict(b=[1, 3])), ['a.b.1 is 2 there and 3 here']),
    (dict(a=1), {}, ['a is 1 there and None here']), ({}, dict(a=1), ['a is None there and 1 here']),
    (dict(a=math.nan), dict(a=math.nan), []), (dict(a=1, b=2), dict(a=2, b=3), ['a is 1 there and 2 here', 'b is 2 there and 3 here'])])
def test_each_difference_is_named(there, here, said): assert [*keeping.differences(there, here)] == said


# Models.

@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_a_saved_net_is_the_net_in_its_dtype_and_loading_draws_no_random_numbers(tmp_path, dtype):
    net, (x, _) = two_layers().to(dtype).train(), digits()
    save_model(net, tmp_path/'net')
    drawn = torch.get_rng_state()
    again = load_model(tmp_path/'net')
    assert torch.equal(torch.get_rng_state(), drawn) and not again.training and again.config == net.config
    assert torch.equal(again(x.to(dtype)), net.eval()(x.to(dtype))) and again.w1.dtype == dtype
    assert again.w1.stride() == two_layers().w1.stride() and again.w1.requires_grad
    (tmp_path/'net').write_bytes(b'')                                      # the net doesn't depend on its file
    assert torch.equal(again.w1, net.w1)


class Wider(TwoLayerNet):
    def forward(self, xb): return 2*super().forward(xb)

def masked(size=3):
    net = nn.Sequential(nn.Linear(9, size), nn.BatchNorm1d(size))
    net.register_buffer('mask', torch.tensor([-math.inf, 0.]))
    return net

def test_any_module_with_its_buffers_and_masks(tmp_path):
    net = masked()
    net(torch.randn(8, 9))
    save_model(net, tmp_path/'net')
    again = masked()
    assert load_model(tmp_path/'net', again) is again and not again.training
    assert same(again.state_dict().values(), net.state_dict().values())


@pytest.mark.parametrize('saved, model, said', [
    (Wider(5), None, "architecture is 'Wider' there and 'TwoLayerNet' here"), (masked(), None, "architecture is 'Sequential'"),
    (two_layers(), Wider(5, .3, 9, 3), "architecture is 'TwoLayerNet' there and 'Wider' here"),
    (two_layers(), TwoLayerNet(5, .2, 9, 3), 'config.dropout is 0.3 there and 0.2 here'),
    (two_layers(), two_layers().double(), "tensors.b1 is 'torch.float32 .* there and 'torch.float64"),
    (masked(), masked(4), r"tensors.0.bias is 'torch.float32 \(3,\)' there and 'torch.float32 \(4,\)' here"),
    (masked(), nn.Sequential(nn.Linear(9, 3)), 'tensors.1.bias is .* there and None here')])
def test_a_model_that_does_not_fit_is_refused_and_left_as_it_was(tmp_path, saved, model, said):
    save_model(saved, tmp_path/'net')
    before = [p.clone() for p in (model or masked()).state_dict().values()]
    with pytest.raises(ValueError, match=said): load_model(tmp_path/'net', model)
    if model is not None: assert same(before, model.state_dict().values())


def test_parameters_that_are_not_finite_are_refused_on_the_way_in_and_out(tmp_path):
    net = masked()
    with torch.no_grad(): net[0].weight[0, 0] = math.nan
    with pytest.raises(ValueError, match='0.weight has values that are not finite'): save_model(net, tmp_path/'net')
    assert not (tmp_path/'net').exists()
    with patch.object(keeping, '_check_finite'): save_model(net, tmp_path/'net')
    with pytest.raises(ValueError, match='0.weight has values that are not finite'): load_model(tmp_path/'net', masked())


def test_a_model_of_0_1_0_loads(tmp_path):
    from safetensors.torch import save
    net = two_layers()
    facts = dict(architecture='TwoLayerNet', config=net.config)            # all that it said
    tensors = {name: p.detach().contiguous() for name, p in net.named_parameters()}
    (tmp_path/'net').write_bytes(save(tensors, {'format': 'mnist_foundations model', 'facts': json.dumps(facts)}))
    assert same(load_model(tmp_path/'net').parameters(), net.parameters())


def test_files_that_hold_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match='is not a file'): load_model(tmp_path/'net')
    torch.save(two_layers(), tmp_path/'net')                               # a pickle, which is not opened
    with pytest.raises(ValueError, match='is damaged, or no safetensors file'): load_model(tmp_path/'net')
    from safetensors.torch import save_file
    save_file(dict(w1=torch.ones(1)), tmp_path/'net')
    with pytest.raises(ValueError, match="holds 'something else'; expected 'mnist_foundations model'"): load_model(tmp_path/'net')


# The net of chapter 04.

def small_net(): return Net(Layer(3, 2, 'tanh', random.Random(0)), Layer(2, 1, 'none', random.Random(1)))

def test_a_plain_net_is_the_same_after_a_file_and_no_random_number_is_drawn(tmp_path):
    net, drawn = small_net(), random.getstate()
    net.params()[2].data = 1e-300/3
    save_net(net, tmp_path/'net')
    again = load_net(tmp_path/'net')
    assert [p.data for p in again.params()] == [p.data for p in net.params()] and random.getstate() == drawn
    assert [[n.activation for n in layer.neurons] for layer in again.layers] == [['tanh', 'tanh'], ['none']]
    assert again([.1, .2, .3])[0].data == net([.1, .2, .3])[0].data


def test_a_plain_net_of_0_1_0_loads(tmp_path):
    (tmp_path/'net').write_text('{"format": "mnist_foundations net", "layers": [{"activation": "relu", "weights": [[1, 2]], "biases": [0.5]}]}')
    assert [p.data for p in load_net(tmp_path/'net').params()] == [1, 2, .5]


@pytest.mark.parametrize('old, new', [('"layers"', '"layer"'), ('tanh', 'than'), ('"biases": [0.0', '"biases": [0.0, 0.0'), ('[[', '[[1, '),
                                      ('"biases": [0.0', '"biases": [NaN'), ('"biases": [0.0', '"biases": ["a"'), ('}', '')])
def test_a_file_that_holds_no_net(tmp_path, old, new):
    save_net(small_net(), tmp_path/'net')
    text = (tmp_path/'net').read_text()
    assert old in text
    (tmp_path/'net').write_text(text.replace(old, new))
    with pytest.raises(ValueError, match='holds no net'): load_net(tmp_path/'net')


def test_a_plain_net_that_can_not_be_written(tmp_path):
    net = small_net()
    net.params()[0].data = math.nan
    with pytest.raises(ValueError, match='not JSON compliant'): save_net(net, tmp_path/'net')
    assert not (tmp_path/'net').exists()


# Refused: whatever differs from the run that was begun.

def thin(scores, y): return batch_accuracy(scores, y)
def rate(step): return .1
def more(scores, y): return softmax_cross_entropy(scores, y) + .1

class Counted(Hook):
    def __init__(self, every): self.every = every


def base():
    x, y = digits()
    net = nn.Sequential(nn.Linear(9, 5), nn.ReLU(), nn.Dropout(.2), nn.Linear(5, 3))
    return dict(model=net, train_dl=BatchLoader(x, y, 16, shuffle=True), valid_dl=BatchLoader(x[:20], y[:20], 16, shuffle=True),
                opt=partial(SGD, lr=.1, momentum=.9), loss_func=partial(softmax_cross_entropy, smoothing=.1),
                schedule=one_cycle(.1, 8), metrics=(batch_accuracy,), augment=by_hand(.5), hooks=[Counted(3)], run=dict(seed=0),
                generators=None)

def begin_or_go_on(path, epochs=1, given=None):
    given = dict(given or base())
    opt, hooks = given.pop('opt')(given['model'].parameters()), given.pop('hooks')
    checkpoint = Checkpoint(path, given.pop('run'), given.pop('generators'))
    return fit(opt=opt, epochs=epochs, hooks=[*hooks, checkpoint], **given), given['model']


x, y = digits()
g, hidden = torch.Generator(), Counted(3)
hidden._by = {1: g}
@pytest.mark.parametrize('change, said', [
    (dict(run=dict(seed=1)), 'run.seed is 0 there and 1 here'), (dict(run=None), "run is {'seed': 0} there and None here"),
    (dict(model=nn.Sequential(nn.Linear(9, 6), nn.ReLU(), nn.Dropout(.2), nn.Linear(6, 3))), r"tensors.0.weight is 'torch.float32 \(5, 9\)'"),
    (dict(model=nn.Sequential(nn.Linear(9, 5), nn.ReLU(), nn.Dropout(.3), nn.Linear(5, 3))), 'model.2.p is 0.2 there and 0.3 here'),
    (dict(model=nn.Sequential(nn.Linear(9, 5), nn.Tanh(), nn.Dropout(.2), nn.Linear(5, 3))), 'model.1.kind is .*ReLU.*Tanh'),
    (dict(model=TwoLayerNet(5, n_pixels=9, n_classes=3)), 'tensors.w1 is None there'),
    (dict(train_dl=BatchLoader(x, y, 15, shuffle=True)), 'train_dl.batch_size is 16 there and 15 here'),
    (dict(train_dl=BatchLoader(x, y, 16)), 'train_dl.shuffle is True'),
    (dict(train_dl=BatchLoader(x, (y + 1) % 3, 16, shuffle=True)), r"train_dl.y is 'torch.int64 \(50,\) "),
    (dict(train_dl=BatchLoader(x + 1e-6, y, 16, shuffle=True)), 'train_dl.x is'),
    (dict(train_dl=[(x[:9], y[:9])]*4), 'train_dl is'), (dict(valid_dl=None), 'valid_dl is'),
    (dict(train_dl=torch.utils.data.DataLoader([*zip(x, y)], 16)), 'train_dl.kind'),
    (dict(valid_dl=BatchLoader(x[:20].flip(0), y[:20], 16, shuffle=True)), 'valid_dl.x is'),
    (dict(opt=partial(SGD, lr=.1, momentum=.8)), r'options.0.momentum is 0.9 there and 0.8 here'),
    (dict(opt=partial(torch.optim.Adam, lr=.1)), "optimizer is 'SGD' there and 'Adam' here"),
    (dict(opt=lambda params: SGD([dict(params=[p]) for p in params], .1, momentum=.9)), r'groups.0.1 is .* there and None here'),
    (dict(loss_func=partial(softmax_cross_entropy, smoothing=.2)), 'loss_func.smoothing is 0.1 there and 0.2 here'),
    (dict(loss_func=nn.CrossEntropyLoss()), 'loss_func.kind is'),
    (dict(loss_func=partial(more)), 'loss_func.func.kind is .*softmax_cross_entropy.* there and .*more'),
    (dict(metrics=()), r'metrics\[0\] is .*batch_accuracy.* there and None here'), (dict(metrics=(thin,)), r'metrics\[0\].kind is .*batch_accuracy.*thin'),
    (dict(schedule=None), 'schedule is'), (dict(schedule=one_cycle(.2, 8)), r'schedule.highest.0 is 0.1 there and 0.2 here'),
    (dict(schedule=one_cycle(.1, 16)), 'n_steps is 8 there and 16 here'), (dict(schedule=rate), 'schedule.kind is'),
    (dict(augment=None), 'augment is'), (dict(augment=by_hand(.6)), 'augment.factor is 0.5 there and 0.6 here'),
    (dict(augment=Noise(.1, None)), 'augment.kind is'),
    (dict(hooks=[Counted(4)]), r'hooks\[0\].every is 3 there and 4 here'), (dict(hooks=[]), r'hooks\[0\].kind is .*Counted.*Checkpoint'),
    (dict(train_dl=BatchLoader(x, y, 16, shuffle=True, generator=g)), 'train_dl.generator is None there'),
    (dict(generators=dict(noise=g)), r'hooks\[1\].generators is None there'),
    (dict(hooks=[hidden]), r'has other sources of random numbers: hooks\[0\]._by.1 differ'),
    (dict(opt=lambda params: SGD([*params][::-1], .1, momentum=.9)), r"groups.0.0 is '0.weight' there and '3.bias' here")])
def test_what_differs_is_named_and_nothing_is_changed(tmp_path, change, said):
    begin_or_go_on(tmp_path/'run')
    kept, given = (tmp_path/'run').read_bytes(), base() | change
    before = [p.clone() for p in given['model'].parameters()]
    drawn = torch.get_rng_state()
    with pytest.raises(ValueError, match=said): begin_or_go_on(tmp_path/'run', 2, given)
    assert (tmp_path/'run').read_bytes() == kept and same(before, given['model'].parameters())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert len(begin_or_go_on(tmp_path/'run', 2)[0]) == 2                  # and what doesn't differ goes on


def test_fewer_epochs_than_done_are_refused_and_more_go_on(tmp_path):
    begin_or_go_on(tmp_path/'run', 3)
    with pytest.raises(ValueError, match='epochs is 2 and 3 are done; expected at least as many'): begin_or_go_on(tmp_path/'run', 2)
    assert len(begin_or_go_on(tmp_path/'run', 3)[0]) == 3 and len(begin_or_go_on(tmp_path/'run', 4)[0]) == 4


def test_the_same_objects_go_on_and_then_new_ones_with_rates_that_a_hook_changed(tmp_path):
    tensors, rows, *_ = train(two_layers, partial(SGD, lr=.1), own, augments[1], lambda: [Halving()])
    def parts(seed=0):
        seed_all(seed)
        net, (x, y) = two_layers(), digits()
        return dict(model=net, train_dl=own(x, y, seed), valid_dl=[(x[:20], y[:20])], opt=SGD(net.parameters(), .1), augment=augments[1](seed))
    first, cut = parts(), Cut(6)
    hooks = [cut, Halving(), Checkpoint(tmp_path/'run')]
    with pytest.raises(KeyboardInterrupt): fit(epochs=4, hooks=hooks, **first)
    cut._step = 10
    with pytest.raises(KeyboardInterrupt): fit(epochs=4, hooks=hooks, **first)
    second = parts(5)
    history = fit(epochs=4, hooks=[Cut(), Halving(), Checkpoint(tmp_path/'run')], **second)
    assert same(second['model'].state_dict().values(), tensors) and history['lr'] == [row['lr'] for row in rows] == [.1, .05, .025, .0125]
    with pytest.raises(ValueError, match='rates.0 is 0.1 there and 0.3 here'):
        fit(epochs=5, hooks=hooks, **second | dict(opt=SGD(second['model'].parameters(), .3)))


def test_ctrl_c_leaves_the_best_tensors_and_the_last_whole_epoch_in_the_file(tmp_path):
    marks, net = iter([.1, .9, .2, .3]), two_layers()
    def mark(scores, y): return next(marks) if len(y) == 20 else 0.
    seen, (x, y) = [], digits()
    class Look(Hook):
        def after_epoch(self, run): seen.append([p.detach().clone() for p in run.params()])
    with pytest.raises(KeyboardInterrupt):
        fit(net, own(x, y, 0), [(x[:20], y[:20])], SGD(net.parameters(), .1), 9, metrics=(mark,), hooks=[Cut(9), Look(), Checkpoint(tmp_path/'run')])
    assert same(seen[0], net.parameters())                                 # the best was the first, with .9
    kept = keeping._read(tmp_path/'run', keeping._checkpoint)
    state = keeping._unpack(kept[1]['state'], kept[0])
    assert same(state['tensors'].values(), seen[1]) and same(state['best']['tensors'], seen[0]) and len(state['rows']) == 2


def test_what_is_no_place_or_no_description_for_a_checkpoint(tmp_path):
    with pytest.raises(TypeError, match='JSON'): Checkpoint(tmp_path/'run', run=dict(data=torch.ones(1)))
    net, (x, y) = two_layers(), digits()
    for hooks, error, said in (([Checkpoint(tmp_path/'run'), Cut()], ValueError, 'Checkpoint is not last'),
                               ([Checkpoint(tmp_path/'no'/'run')], FileNotFoundError, 'is no folder')):
        with pytest.raises(error, match=said): fit(net, own(x, y, 0), None, SGD(net.parameters(), .1), 1, hooks=hooks)


@pytest.mark.parametrize('spoil, said', [
    (lambda data: data[:-9], 'damaged'), (lambda data: b'', 'damaged'), (lambda data: bytes(99), 'damaged'),
    (lambda data: data.replace(b'rows', b'cows'), r"no whole checkpoint \(.*rows"),
    (lambda data: data.replace(b'checkpoint 2', b'checkpoint 3'), "holds 'mnist_foundations checkpoint 3'; expected")])
def test_a_spoilt_checkpoint_is_refused(tmp_path, spoil, said):
    begin_or_go_on(tmp_path/'run')
    (tmp_path/'run').write_bytes(spoil((tmp_path/'run').read_bytes()))
    with pytest.raises(ValueError, match=said): begin_or_go_on(tmp_path/'run', 2)


def test_a_checkpoint_of_0_1_0_and_a_model_are_refused_by_name(tmp_path):
    from safetensors.torch import save
    facts = dict(run=dict(batches=4, seed=0), rows=[], numbers={}, best=None)
    (tmp_path/'run').write_bytes(save({'now.0': torch.ones(2)}, {'format': 'mnist_foundations checkpoint', 'facts': json.dumps(facts)}))
    with pytest.raises(ValueError, match="holds 'mnist_foundations checkpoint'; expected 'mnist_foundations checkpoint 2'"): begin_or_go_on(tmp_path/'run')
    save_model(two_layers(), tmp_path/'net')
    with pytest.raises(ValueError, match="holds 'mnist_foundations model'; expected"): begin_or_go_on(tmp_path/'net')


# Several processes.

class Meanwhile(Hook):
    "Another process, after the first epoch."
    def __init__(self, act): self._act = act
    def after_epoch(self, run):
        if len(run.history) == 2: self._act()


@pytest.mark.parametrize('n', [1, 3])
def test_what_another_process_wrote_is_left_alone(tmp_path, n):
    path, parts = tmp_path/'run', (two_layers, partial(SGD, lr=.1), own, augments[0])
    other = lambda: train(*parts, lambda: [Meanwhile(lambda: None)], n, path=path)
    if n == 1: path.unlink(missing_ok=True)
    with pytest.raises(RuntimeError, match='another process has written'):
        train(*parts, lambda: [Meanwhile(lambda: (path.unlink() if n == 1 else None, other()))], path=path)
    kept = keeping._read(path, keeping._checkpoint)
    assert len(keeping._unpack(kept[1]['state'], kept[0])['rows']) == n
    assert len(train(*parts, lambda: [Meanwhile(lambda: None)], path=path)[1]) == 4


def test_two_begin_at_once_and_a_file_that_is_gone_is_written_again(tmp_path):
    path, parts = tmp_path/'run', (two_layers, partial(SGD, lr=.1), own, augments[0])
    class First(Hook):
        def __init__(self, act): self._act = act
        def after_batch(self, run):
            if run.step == 1: self._act()
    with pytest.raises(RuntimeError, match='another process'):
        train(*parts, lambda: [First(lambda: train(*parts, lambda: [First(lambda: None)], 1, path=path))], path=path)
    train(*parts, lambda: [Meanwhile(path.unlink)], path=(path := tmp_path/'another'))
    assert path.exists()


class TwoRanks:
    "Stands in for `torch.distributed`, with the other process's value beside ours."
    def __init__(self, rank): self.rank, self.is_available, self.is_initialized = rank, lambda: True, lambda: True
    def get_rank(self): return self.rank
    def get_world_size(self): return 2
    def all_gather_object(self, values, value):
        values[self.rank], values[1 - self.rank] = value, dict(value, random={}) if isinstance(value, dict) and 'random' in value else value


def test_one_of_several_processes_writes_and_each_goes_on_with_its_own_random_numbers(tmp_path):
    with patch.object(processes, 'dist', TwoRanks(1)): begin_or_go_on(tmp_path/'run')
    assert not (tmp_path/'run').exists()
    with patch.object(processes, 'dist', TwoRanks(0)): begin_or_go_on(tmp_path/'run')
    with patch.object(processes, 'dist', TwoRanks(0)): begin_or_go_on(tmp_path/'run', 2)
    with patch.object(processes, 'dist', TwoRanks(1)):
        with pytest.raises(ValueError, match='has other sources of random numbers'): begin_or_go_on(tmp_path/'run', 3)
    with pytest.raises(ValueError, match='processes is 2 there and 1 here'): begin_or_go_on(tmp_path/'run', 3)


# Cut at any step, and killed.

@settings(max_examples=40, deadline=None)
@given(st.sampled_from(models), st.sampled_from(optimizers), st.sampled_from(loaders), st.sampled_from(augments),
       st.sampled_from(hook_lists), st.integers(0, 12), st.sampled_from([KeyboardInterrupt, ValueError]), st.integers(1, 4))
def test_a_run_that_was_cut_ends_as_the_straight_one(tmp_path_factory, model, opt, loader, augment, hooks, step, how, epochs):
    path = tmp_path_factory.mktemp('run')/'checkpoint'
    try: train(model, opt, loader, augment, hooks, epochs, path=path, cut=Cut(step, how))
    except how: pass
    tensors, rows, history, drawn = train(model, opt, loader, augment, hooks)
    if not path.exists(): return                                           # cut in the first epoch: nothing is there
    for again in range(2):                                                 # the second has nothing left to do
        seed_all(99)
        gone_on = train(model, opt, loader, augment, hooks, seed=7 + again, path=path)
        assert same(gone_on[0], tensors) and gone_on[1] == rows and gone_on[2].stopped == history.stopped
        assert gone_on[3] == drawn
    assert [p.name for p in path.parent.iterdir()] == ['checkpoint']


script = """
import os, signal, sys, torch
from mnist_foundations.keeping import Checkpoint
from mnist_foundations.optimizers import SGD
from mnist_foundations.training import TwoLayerNet, fit
from mnist_foundations.data import BatchLoader
import mnist_foundations.files
torch.manual_seed(0 if sys.argv[2] != 'again' else 5)
x, y = torch.arange(450.).reshape(50, 9)/450, torch.arange(50) % 3
net = TwoLayerNet(5, .3, 9, 3)
writes, sync = [], os.fsync
def kill_the_second(f):
    writes.append(f)
    if len(writes) == 2 and sys.argv[2] == 'killed': os.kill(os.getpid(), signal.SIGKILL)
    sync(f)
os.fsync = kill_the_second
fit(net, BatchLoader(x, y, 16, shuffle=True), None, SGD(net.parameters(), .1, .9), 3, hooks=[Checkpoint(sys.argv[1])])
print(sum(p.double().sum().item() for p in net.parameters()))
"""

def run_script(path, how):
    done = subprocess.run([sys.executable, '-c', script, str(path), how], capture_output=True, text=True)
    assert done.returncode == (-signal.SIGKILL if how == 'killed' else 0), done.stderr
    return done.stdout

def test_a_process_that_is_killed_while_it_writes(tmp_path):
    straight = run_script(tmp_path/'straight', 'straight')
    (tmp_path/'killed').mkdir()
    run_script(tmp_path/'killed'/'run', 'killed')
    assert len(list((tmp_path/'killed').iterdir())) > 1                    # what it was writing is left
    assert run_script(tmp_path/'killed'/'run', 'again') == straight
    assert [p.name for p in (tmp_path/'killed').iterdir()] == ['run']
