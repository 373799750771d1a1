"Chapter 04: random graphs against PyTorch and finite differences, bad input, spoilt files, whole layers."
import errno, json, math, os, random
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from mnist_foundations.backprop import (
    Layer, Net, Neuron, Value, backprop_epoch, categorical_cross_entropy, cross_entropy, load_net, mean_squared_error,
    save_net, show_graph, sigmoid_net, sigmoid_net_grads, softmax)
from mnist_foundations.data import BatchLoader, one_hot
from mnist_foundations.linear import train_epoch

wrong_answers = [   # what a reader might answer, for each exercise of the chapter in order
    'my_signs = [-1, 1]', 'def my_softplus(value): return (value.exp() + 1).log()',
    'my_grads = lambda xb, t, *params: sigmoid_net_grads(xb, t, *sigmoid_net(xb, *params), params[2])',
    'my_counts = [2**30, 31]']
devices = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU'))]


# Random graphs. A program is a list of steps; each applies an operation to one or two of the values made so far.

one = {'neg': lambda a: -a, 'exp': lambda a: a.exp(), 'log': lambda a: a.log(), 'relu': lambda a: a.relu(),
       'sigmoid': lambda a: a.sigmoid(), 'tanh': lambda a: a.tanh(),
       'number+': lambda a: 1.5 + a, '-number': lambda a: a - .7, 'number-': lambda a: 2 - a, 'number*': lambda a: -3*a,
       '/number': lambda a: a/4, 'number/': lambda a: 2/a, '**2': lambda a: a**2, '**-1': lambda a: a**-1,
       '**.5': lambda a: a**.5, '**0': lambda a: a**0, 'number**': lambda a: 1.3**a}
two = {'+': lambda a, b: a + b, '-': lambda a, b: a - b, '*': lambda a, b: a*b, '/': lambda a, b: a/b,
       '**': lambda a, b: a**b}
leaves = st.lists(st.floats(-3, 3).filter(lambda v: abs(v) > .01), min_size=2, max_size=4)
programs = st.lists(st.tuples(st.sampled_from([*one, *two]), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=15)


def allowed(op, a, b):
    "Whether the operation has a value and slopes of moderate size at a and b."
    if op in ('log', '**.5'): return a > .05
    if op == '**': return a > .05 and abs(b) < 4
    if op == '/': return abs(b) > .05
    if op in ('number/', '**-1'): return abs(a) > .05
    if op in ('exp', 'number**'): return abs(a) < 5
    return True


def step(op, a, b): return one[op](a) if op in one else two[op](a, b)


def plan(program, numbers):
    "The steps of `program` that are allowed from these numbers on, with the places of what they take."
    values, steps = [Value(n) for n in numbers], []
    for op, i, j in program:
        i, j = i % len(values), j % len(values)
        if not allowed(op, values[i].data, values[j].data): continue
        made = step(op, values[i], values[j])
        if abs(made.data) < 1e3:
            values.append(made)
            steps.append((op, i, j))
    return steps


def follow(steps, values):
    "The sum of all values that the steps make, so that each has a gradient."
    values = list(values)
    for op, i, j in steps: values.append(step(op, values[i], values[j]))
    return sum(values)


@settings(deadline=None, max_examples=250)
@given(leaves, programs)
def test_any_graph_has_the_gradients_of_pytorch(numbers, program):
    steps, ours = plan(program, numbers), [Value(n) for n in numbers]
    theirs = [torch.tensor(n, dtype=torch.float64, requires_grad=True) for n in numbers]
    out, expected = follow(steps, ours), follow(steps, theirs)
    out.backward()
    expected.backward()
    assert out.data == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
    for v, t in zip(ours, theirs): assert v.grad == pytest.approx(t.grad.item(), rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=120)
@given(leaves, programs)
def test_any_smooth_graph_has_the_gradients_that_nudging_finds(numbers, program):
    steps, ours = plan([s for s in program if s[0] != 'relu'], numbers), [Value(n) for n in numbers]
    follow(steps, ours).backward()
    for i, v in enumerate(ours):
        def at(n): return follow(steps, [Value(n if j == i else m) for j, m in enumerate(numbers)]).data
        def slope(eps): return (at(v.data + eps) - at(v.data - eps))/(2*eps)
        fine, coarse = slope(1e-5), slope(2e-5)
        assume(fine == pytest.approx(coarse, rel=1e-4, abs=1e-4))   # not where the slope itself changes that fast
        assert v.grad == pytest.approx((4*fine - coarse)/3, rel=1e-3, abs=1e-3)


def test_the_exponent_has_a_slope():
    a, b = Value(3), Value(-1.5)
    (a**b).backward()
    assert b.grad == pytest.approx(3**-1.5*math.log(3), rel=1e-12)
    (2**b).backward()
    zero, two_ = Value(0), Value(2)
    (zero**two_).backward()
    assert (zero.grad, two_.grad) == (0., 0.)               # as PyTorch has it


def test_backward_adds_up_for_what_was_given_and_not_between():
    a = Value(2)
    b = a*a
    c = b + b
    for calls in (1, 2, 3):
        c.backward()
        assert (a.grad, b.grad, c.grad) == (8.*calls, 2., 1.)
    b.backward()                                            # from another place in the same graph
    assert a.grad == 28.
    c.zero_grad()
    assert (a.grad, b.grad, c.grad) == (0., 0., 0.)
    a.backward()
    assert a.grad == 1.


def test_deep_graphs_need_no_recursion():
    x = Value(1)
    out = sum(x*1 for _ in range(10_000))
    for _ in range(50_000): out = out + 0
    out.backward()
    assert x.grad == 10_000
    out.zero_grad()
    del out                                                 # nor does throwing them away


@pytest.mark.parametrize('number', [np.float64(3), np.float32(3), np.int64(3)])
def test_numpy_numbers_on_either_side(number):
    for out in (number*Value(2), Value(2)*number, number + Value(3), number - Value(-3)):
        assert isinstance(out, Value) and out.data == 6 and type(out.data) is float


# Bad numbers

@pytest.mark.parametrize('bad', ['1', None, [1.], 1j, True, torch.tensor(1.), np.array([1., 2.])])
def test_values_that_are_not_numbers(bad):
    with pytest.raises(TypeError, match='expected a real number'): Value(bad)
    with pytest.raises(TypeError): Value(1) + bad
    with pytest.raises(TypeError): Value(2)**bad


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf, 10**400, np.float64('nan')])
def test_values_that_are_not_finite(bad):
    with pytest.raises(ValueError, match='expected a finite number'): Value(bad)
    with pytest.raises(ValueError, match='expected a finite number'): Value(1)*bad


@pytest.mark.parametrize('f, message', [
    (lambda v: v/0, 'divided by 0'), (lambda v: 1/(v - v), 'divided by 0'), (lambda v: (v - v)**-1, 'no finite value'),
    (lambda v: (v - v)**.5, 'no finite value and slope'), (lambda v: (-v)**.5, 'expected a base of 0 or more'),
    (lambda v: (-v)**Value(2), 'expected a base of 0 or more'), (lambda v: (v*10)**400, 'no finite value'),
    (lambda v: (v - v).log(), 'log of 0.0; expected a number above 0'), (lambda v: (-v).log(), 'log of -1.0'),
    (lambda v: (v*800).exp(), 'exp of 800.0; expected at most 709'),
    (lambda v: (v*1e300*1e300).backward(), 'backward from inf'),
    (lambda v: (1/(v*1e-200)).backward(), 'has no finite gradient'), (lambda v: (v*5e-324).log().backward(), 'no finite gradient'),
    (lambda v: ((1/(v*1e-200))*0).backward(), 'has no finite gradient')])
def test_operations_without_a_finite_result(f, message):
    with pytest.raises(ValueError, match=message): f(Value(1))


def test_softmax_and_losses():
    for scores in ([1e308, -1e308], [0, 0], [700, -700, 0]):
        p = [v.data for v in softmax([Value(s) for s in scores])]
        assert sum(p) == pytest.approx(1) and all(0 <= q <= 1 for q in p)
    inf = Value(1e300)*1e300
    for f in (softmax, lambda s: cross_entropy(s, 0)):
        for bad in (inf, -inf, inf - inf):
            with pytest.raises(ValueError, match=r'scores\[1\] is .*; expected a finite number'): f([Value(0), bad])
        with pytest.raises(ValueError, match='expected at least one'): f([])
    assert cross_entropy([Value(1e16), 1e16], 0).data == pytest.approx(math.log(2))      # the small part is not lost
    for loss in (cross_entropy, mean_squared_error):
        for target in (2, -1, 10**20):
            with pytest.raises(ValueError, match='expected a class from 0 to 1'): loss([Value(0), Value(1)], target)
        for target in (.5, '1', None, True, [1], torch.tensor(1.5)):
            with pytest.raises(TypeError, match='expected a whole number'): loss([Value(0), Value(1)], target)
        assert loss([Value(0), Value(1)], torch.tensor(1)).data == loss([Value(0), Value(1)], np.int64(1)).data


# Nets

def small(): return Net(Layer(3, 4, 'relu', random.Random(0)), Layer(4, 2, 'none', random.Random(1)))


@pytest.mark.parametrize('make, message', [
    (lambda: Neuron(0), 'n_in is 0'), (lambda: Neuron(2.), 'n_in is 2.0'), (lambda: Layer(2, 0), 'n_out is 0'),
    (lambda: Layer(2, 2, 'RELU'), "activation is 'RELU'; expected one of relu, sigmoid, tanh, none"),
    (lambda: Layer(2, 2, []), r'activation is \[\]; expected one of'), (lambda: Net(), 'there are no layers'),
    (lambda: Net([Layer(2, 3)]), r'layers\[0\] is a list; expected a Layer'),
    (lambda: Net(Layer(2, 3), Layer(2, 3)), r'layers\[0\] has 3 outputs')])
def test_nets_that_do_not_fit(make, message):
    with pytest.raises((TypeError, ValueError), match=message): make()


@pytest.mark.parametrize('pixels, target, lr, error', [
    ([1, 2], 0, .1, ValueError), ([1, 2, 3, 4], 0, .1, ValueError), ([1, math.nan, 3], 0, .1, ValueError),
    ([1, '2', 3], 0, .1, TypeError), ([1, 2, 3], 2, .1, ValueError), ([1, 2, 3], 0, 0, ValueError),
    ([1, 2, 3], 0, math.nan, ValueError), ([1, 2, 3], 0, '1', TypeError), ([1, 2, None], 0, .1, TypeError),
    ([1, 2, ''], 0, .1, TypeError), ([1e200, 1, 1], 1, 1e200, ValueError)])
def test_a_refused_step_changes_nothing(pixels, target, lr, error):
    net = small()
    before = [p.data for p in net.params()]
    with pytest.raises(error): net.learn(pixels, target, lr)
    assert [p.data for p in net.params()] == before


def test_a_bad_input_is_named():
    for bad in ('3', None, math.nan, [1.], True):
        with pytest.raises((TypeError, ValueError), match=r'inputs\[1\]: '): small()([0, bad, 1])


@pytest.mark.parametrize('lr', [np.float32(.1), np.float64(.1), 1])
def test_weights_stay_floats(tmp_path, lr):
    net = small()
    net.learn([1, 2, 3], 0, lr)
    assert all(type(p.data) is float for p in net.params())
    save_net(net, tmp_path/'net.json')


def test_a_step_is_that_of_pytorch():
    net, pixels = small(), [.5, 0, 1]
    net(pixels)[0].backward()                               # leaves gradients behind
    w1, b1, w2, b2 = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for l in net.layers for v in
                      ([[w.data for w in n.weights] for n in l.neurons], [n.bias.data for n in l.neurons])]
    scores = w2@(w1@torch.tensor(pixels, dtype=torch.float64) + b1).relu() + b2
    loss = torch.nn.functional.cross_entropy(scores[None], torch.tensor([1]))
    loss.backward()
    assert net.learn(pixels, 1, .1) == pytest.approx(loss.item())
    for l, w, b in zip(net.layers, (w1, w2), (b1, b2)):
        for n, row, grads, bias, grad in zip(l.neurons, w.tolist(), w.grad.tolist(), b.tolist(), b.grad.tolist()):
            assert [v.data for v in n.weights] == pytest.approx([v - .1*g for v, g in zip(row, grads)])
            assert n.bias.data == pytest.approx(bias - .1*grad)
    assert net.layers[0].neurons[0].weights[1].grad == 0    # of the black pixel


def test_a_drawing_says_what_is_there():
    a, b = Value(2), Value(-3)
    out = a*b + a
    out.backward()
    picture = show_graph(out, {a: 'a', b: 'b'})
    assert 'a 2 with gradient -2' in picture.alt and 'b -3 with gradient 2' in picture.alt
    assert len([t for t in picture.fig.axes[0].texts if 'grad' in t.get_text()]) == 4
    assert b'PNG' in show_graph(Value(1))._repr_mimebundle_()[0]['image/png'][:8]
    with pytest.raises(ValueError, match='made from .* expected at most 60'): show_graph(sum(Value(1) for _ in range(40)))


# Files

def spoil(change):
    def spoilt(fields):
        change(fields)
        return json.dumps(fields)
    return spoilt

def layer(i, **new): return spoil(lambda f: f['layers'][i].update(new))


@pytest.mark.parametrize('spoilt, message', [
    (lambda f: json.dumps(f)[:100], 'is not JSON'), (lambda f: '', 'is not JSON'), (lambda f: '[' * 100_000, 'is not JSON'),
    (lambda f: '[]', r'the file is \[\]; expected an object'), (lambda f: '{}', "the file has no field 'format'"),
    (spoil(lambda f: f.update(format='torch')), "format is 'torch'"), (spoil(lambda f: f.update(seed=1)), "unknown field 'seed'"),
    (spoil(lambda f: f.pop('layers')), "no field 'layers'"), (spoil(lambda f: f.update(layers=[])), 'expected a list of layers'),
    (spoil(lambda f: f.update(layers={'0': 1})), 'expected a list of layers'),
    (spoil(lambda f: f['layers'].pop(0) and f['layers'].append(3)), r'layers\[1\] is 3.0; expected an object'),
    (spoil(lambda f: f['layers'][1].pop('biases')), r"layers\[1\] has no field 'biases'"),
    (layer(0, bias=[]), r"layers\[0\] has an unknown field 'bias'"),
    (layer(0, activation='step'), r"layers\[0\].activation is 'step'"), (layer(0, activation=None), r'layers\[0\].activation is None'),
    (layer(0, activation=['relu']), r"layers\[0\].activation is \['relu'\]"),
    (layer(0, biases=[]), r'layers\[0\].biases has 0 items'), (layer(0, biases=[0, 0, 0]), r'layers\[0\].weights is .* expected 3 lists'),
    (layer(0, biases=[0, 0, 0, math.nan]), r'layers\[0\].biases\[3\] is nan; expected a finite number'),
    (layer(0, biases=7), r'layers\[0\].biases is 7.0; expected a list'), (layer(0, weights='ab'), r'layers\[0\].weights is'),
    (layer(0, weights=[[1, 2, 3]]*3 + [[1, 2]]), r'layers\[0\].weights\[3\] has 2 items; expected 3'),
    (layer(1, weights=[[1, 2, 3]]*2), r'layers\[1\].weights\[0\] has 3 items; expected 4'),
    (layer(0, weights=[[1, 2, math.inf]]*4), r'layers\[0\].weights\[0\]\[2\] is inf'),
    (layer(0, weights=[[1, 2, None]]*4), r'layers\[0\].weights\[0\]\[2\] is None'),
    (layer(0, weights=[[1, 2, True]]*4), r'layers\[0\].weights\[0\]\[2\] is True'),
    (layer(0, weights=[[1, 2, 10**400]]*4), r'layers\[0\].weights\[0\]\[2\] is inf'),
    (lambda f: json.dumps(f).replace('[[', '[[' + '1'*5000, 1), r'layers\[0\].weights\[0\]\[0\] is inf'),
    (layer(0, weights=[[1, 2, 'x'*10**6]]*4), r'weights\[0\]\[2\] is .xxx'), (layer(0, **{'y'*10**6: 1}), 'unknown field .yyy'),
    (lambda f: json.dumps(f)[:-1] + ', "format": "mnist_foundations net"}', 'a field is there twice'),
    (layer(0, weights=[[1, 2, '3']]*4), r"layers\[0\].weights\[0\]\[2\] is '3'")])
def test_a_spoilt_file_is_named_with_its_field(tmp_path, spoilt, message):
    save_net(small(), tmp_path/'net.json')
    fields = json.loads((tmp_path/'net.json').read_text(encoding='utf-8'))
    (tmp_path/'net.json').write_text(spoilt(fields), encoding='utf-8')
    with pytest.raises(ValueError, match=message) as e: load_net(tmp_path/'net.json')
    assert 'net.json' in str(e.value) and len(str(e.value)) < 1000


def test_a_file_comes_back_exactly_and_a_missing_or_binary_one_is_named(tmp_path):
    net = small()
    save_net(net, tmp_path/'net.json')
    again = load_net(str(tmp_path/'net.json'))
    assert [p.data for p in again.params()] == [p.data for p in net.params()]
    assert again.predict([1, 0, .5]) == net.predict([1, 0, .5])
    with pytest.raises(FileNotFoundError): load_net(tmp_path/'none.json')
    (tmp_path/'binary').write_bytes(b'\xff\xfe\x00\x80')
    with pytest.raises(ValueError, match='is not JSON'): load_net(tmp_path/'binary')


def test_a_full_disk_or_a_bad_weight_leaves_the_old_file(tmp_path):
    file = tmp_path/'net.json'
    save_net(small(), file)
    was = file.read_bytes()
    for broken in (OSError(errno.ENOSPC, 'No space left on device'), KeyboardInterrupt()):
        with patch('os.fsync', side_effect=broken), pytest.raises(type(broken)): save_net(small(), file)
    bad = small()
    bad.params()[5].data = math.nan
    with pytest.raises(ValueError, match=r'layers\[0\].weights\[1\]\[1\] is nan'): save_net(bad, file)
    with pytest.raises(FileNotFoundError): save_net(small(), tmp_path/'none'/'net.json')
    mixed = small()
    mixed.layers[0].neurons[1].activation = 'tanh'
    with pytest.raises(ValueError, match=r'layers\[0\] has neurons with relu and tanh'): save_net(mixed, file)
    assert os.listdir(tmp_path) == ['net.json'] and file.read_bytes() == was


def test_links_rights_and_random_numbers_are_left_alone(tmp_path):
    os.symlink(tmp_path/'net.json', tmp_path/'link')
    save_net(small(), tmp_path/'link')
    assert os.path.islink(tmp_path/'link')
    (tmp_path/'other').touch()
    assert (tmp_path/'net.json').stat().st_mode == (tmp_path/'other').stat().st_mode
    random.seed(0)
    expected = random.random()
    random.seed(0)
    load_net(tmp_path/'link')
    assert random.random() == expected


# Whole layers

def batch(device='cpu', n=50, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    x, t = torch.rand(n, 784, generator=g), one_hot(torch.randint(10, (n,), generator=g))
    params = [torch.randn(s, generator=g)*.1 for s in ((784, 10), 10, (10, 10), 10)]
    return x.to(device, dtype), t.to(device, dtype), [p.to(device, dtype) for p in params]


@pytest.mark.parametrize('device', devices)
def test_gradients_by_hand_are_those_of_autograd(device):
    x, t, params = batch(device, dtype=torch.float64)
    p, h = sigmoid_net(x, *params)
    ours = sigmoid_net_grads(x, t, p, h, params[2])
    w1, b1, w2, b2 = [q.clone().requires_grad_() for q in params]
    loss = torch.nn.functional.cross_entropy((x@w1 + b1).sigmoid()@w2 + b2, t)
    theirs = torch.autograd.grad(loss, (w1, b1, w2, b2))
    torch.testing.assert_close(categorical_cross_entropy(p, t), loss.detach())
    for a, b in zip(ours, theirs): torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize('device', devices)
def test_an_epoch_by_hand_is_that_of_train_epoch(device):
    x, t, params = batch(device)
    asked = [p.clone().requires_grad_() for p in params]
    def model(xb): return (xb@asked[0] + asked[1]).sigmoid()@asked[2] + asked[3]
    dl = BatchLoader(x, t, 20)                              # the last batch is short
    ours, theirs = backprop_epoch(.5, params, dl), train_epoch(model, .5, asked, dl, torch.nn.functional.cross_entropy)
    assert ours == pytest.approx(theirs, rel=1e-5)
    for p, q in zip(params, asked): torch.testing.assert_close(p, q.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    x, t, params = batch(dtype=dtype)
    loss = backprop_epoch(.1, params, [(x, t.float())]*100)
    assert 0 < loss < 4 and all(p.dtype == dtype for p in params)


def test_autograd_goes_through_the_net_by_hand():
    x, t, params = batch(dtype=torch.float64)
    asked = [p.clone().requires_grad_() for p in params]
    p, h = sigmoid_net(x, *asked)
    categorical_cross_entropy(p, t).backward()
    for a, g in zip(asked, sigmoid_net_grads(x, t, p, h, asked[2])): torch.testing.assert_close(a.grad, g.detach())


def test_large_scores_are_safe():
    x, t, params = batch()
    p, h = sigmoid_net(x, *[q*1e4 for q in params])
    assert p.isfinite().all() and h.isfinite().all() and categorical_cross_entropy(p, t).isfinite()
    assert all(g.isfinite().all() for g in sigmoid_net_grads(x, t, p, h, params[2]))


def test_a_failed_epoch_leaves_the_parameters():
    x, t, params = batch()
    kept = [p.clone() for p in params]
    bad = x.clone()
    bad[30] = math.inf
    for batches, message in (
            ([(x[:20], t[:20]), (bad[20:40], t[20:40]), (x[40:], t[40:])], 'in batch 1 of 3; lr=0.1 is likely too large'),
            ([(bad, t), (x, t[:, :2])], 'targets')):
        with pytest.raises(ValueError, match=message): backprop_epoch(.1, params, batches)
        for p, was in zip(params, kept): assert torch.equal(p, was)
    params[0][3] = math.nan
    with pytest.raises(ValueError, match=r'params\[0\] has values that are not finite'): backprop_epoch(.1, params, [(x, t)])


@pytest.mark.parametrize('change, message', [
    (lambda p: p.pop(), 'params are 3 tensors; expected four'), (lambda p: p.append(p[0]), 'params are 5 tensors'),
    (lambda p: p.__setitem__(1, torch.zeros(1)), r'params\[1\] has the shape \(1,\)'),
    (lambda p: p.__setitem__(3, torch.zeros(1)), r'params\[3\] has the shape \(1,\)'),
    (lambda p: p.__setitem__(2, torch.zeros(9, 10)), r'w2 \(9, 10\)')])
def test_parameters_that_do_not_fit(change, message):
    x, t, params = batch()
    change(params)
    with pytest.raises(ValueError, match=message): backprop_epoch(.1, params, [(x, t)])


def test_gradients_of_what_does_not_fit():
    x, t, params = batch()
    p, h = sigmoid_net(x, *params)
    for hidden, w2 in ((h[:, :1], params[2]), (h[:5], params[2]), (h, params[2][:1]), (h, params[2][:, :9])):
        with pytest.raises(ValueError, match='hidden has the shape .* and w2 .*; expected'): sigmoid_net_grads(x, t, p, hidden, w2)
    with pytest.raises(ValueError, match='are they scores'): categorical_cross_entropy(torch.randn(50, 10)*9, t)
    with pytest.raises(ValueError, match=r'expected \(n,c\)'): categorical_cross_entropy(p[0], t[0])


@pytest.mark.parametrize('change, message', [
    (dict(x=torch.zeros(50, 783)), r'xb has the shape \(50, 783\)'), (dict(t=torch.zeros(50, 9)), r'targets \(50, 9\)'),
    (dict(t=torch.zeros(50, 10)), 'a row without one 1'), (dict(t=torch.ones(50, 10)), 'a row without one 1'),
    (dict(t=torch.full((50, 10), .1)), 'expected only 0 and 1'), (dict(lr=-1), 'lr is -1; expected a positive number')])
def test_batches_that_do_not_fit(change, message):
    x, t, params = batch()
    kept = [p.clone() for p in params]
    with pytest.raises(ValueError, match=message):
        backprop_epoch(change.get('lr', .1), params, [(change.get('x', x), change.get('t', t))])
    for p, was in zip(params, kept): assert torch.equal(p, was)
