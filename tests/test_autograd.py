"Chapter 04: values against numbers worked by hand, nudges, micrograd and PyTorch; nets of them; what is refused."
import math, random

import micrograd.engine
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings, strategies as st

from mnist_foundations.autograd import Layer, Net, Neuron, Value, activations, cross_entropy, show_graph, softmax

wrong_answers = [   # what a reader might answer, for each exercise of the chapter in order
    'my_signs = [-1, 1]', 'my_counts = [2**30, 31]', 'def my_backward(root): broken_backward(root)',
    'def my_softplus(value): return (value.exp() + 1).log()', 'def my_cube_root(n): return n/3']


# Random graphs. A program is a list of steps; each applies an operation to one or two of the values made so far.

one = {'neg': lambda a: -a, 'exp': lambda a: a.exp(), 'log': lambda a: a.log(), 'relu': lambda a: a.relu(),
       'sigmoid': lambda a: a.sigmoid(), 'tanh': lambda a: a.tanh(),
       'number+': lambda a: 1.5 + a, '-number': lambda a: a - .7, 'number-': lambda a: 2 - a, 'number*': lambda a: -3*a,
       '/number': lambda a: a/4, 'number/': lambda a: 2/a, '**3': lambda a: a**3, '**-1': lambda a: a**-1,
       '**.5': lambda a: a**.5, 'number**': lambda a: 1.3**a}
two = {'+': lambda a, b: a + b, '-': lambda a, b: a - b, '*': lambda a, b: a*b, '/': lambda a, b: a/b,
       '**': lambda a, b: a**b, 'max': lambda a, b: a.maximum(b)}
leaves = st.lists(st.floats(-3, 3).filter(lambda v: abs(v) > .01), min_size=2, max_size=4, unique=True)
programs = st.lists(st.tuples(st.sampled_from([*one, *two]), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=15)
in_micrograd = {'neg', 'relu', 'number+', '-number', 'number-', 'number*', '/number', 'number/', '**3', '**-1', '+', '-', '*', '/'}


def allowed(op, a, b):
    "Whether the operation has a value and slopes of moderate size at a and b."
    if op in ('log', '**.5'): return a > .05
    if op == '**': return a > .05 and abs(b) < 4
    if op == '/': return abs(b) > .05
    if op in ('number/', '**-1'): return abs(a) > .05
    if op in ('exp', 'number**'): return abs(a) < 5
    if op == 'relu': return a != 0
    if op == 'max': return a != b                            # at a tie PyTorch gives each a half
    return True


def step(op, a, b):
    if op == 'max' and isinstance(a, torch.Tensor): return torch.maximum(a, b)
    return one[op](a) if op in one else two[op](a, b)


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


@settings(deadline=None, max_examples=60)
@given(leaves, programs)
def test_any_graph_has_the_gradients_of_pytorch(numbers, program):
    steps, ours = plan(program, numbers), [Value(n) for n in numbers]
    theirs = [torch.tensor(n, dtype=torch.float64, requires_grad=True) for n in numbers]
    out, expected = follow(steps, ours), follow(steps, theirs)
    out.backward()
    expected.backward()
    assert out.data == pytest.approx(expected.item(), rel=1e-8, abs=1e-8)
    for v, t in zip(ours, theirs): assert v.grad == pytest.approx(t.grad.item(), rel=1e-8, abs=1e-8)


@settings(deadline=None, max_examples=40)
@given(leaves, programs)
def test_any_graph_has_the_gradients_of_micrograd(numbers, program):
    steps = plan([s for s in program if s[0] in in_micrograd], numbers)
    ours, theirs = [Value(n) for n in numbers], [micrograd.engine.Value(n) for n in numbers]
    out, expected = follow(steps, ours), follow(steps, theirs)
    out.backward()
    expected.backward()
    assert out.data == pytest.approx(expected.data, rel=1e-9, abs=1e-9)
    for v, t in zip(ours, theirs): assert v.grad == pytest.approx(t.grad, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(leaves, programs)
def test_any_smooth_graph_has_the_gradients_that_nudging_finds(numbers, program):
    steps, ours = plan([s for s in program if s[0] not in ('relu', 'max')], numbers), [Value(n) for n in numbers]
    follow(steps, ours).backward()
    for i, v in enumerate(ours):
        def at(n): return follow(steps, [Value(n if j == i else m) for j, m in enumerate(numbers)]).data
        def slope(eps): return (at(v.data + eps) - at(v.data - eps))/(2*eps)
        fine, coarse = slope(1e-5), slope(2e-5)
        assume(fine == pytest.approx(coarse, rel=1e-4, abs=1e-4))   # not where the slope itself changes that fast
        assert v.grad == pytest.approx((4*fine - coarse)/3, rel=1e-3, abs=1e-3)


# Each operation by hand: value, and slopes.

@pytest.mark.parametrize('f, data, grad', [
    (lambda v: v + 3, 5, 1), (lambda v: 3 + v, 5, 1), (lambda v: v*3, 6, 3), (lambda v: 3*v, 6, 3), (lambda v: -v, -2, -1),
    (lambda v: v - 3, -1, 1), (lambda v: 3 - v, 1, -1), (lambda v: v/4, .5, .25), (lambda v: 4/v, 2, -1),
    (lambda v: v**3, 8, 12), (lambda v: v**-1, .5, -.25), (lambda v: 3**v, 9, 9*math.log(3)), (lambda v: v**v, 4, 4 + 4*math.log(2)),
    (lambda v: v.exp(), math.e**2, math.e**2), (lambda v: v.log(), math.log(2), .5),
    (lambda v: v.maximum(1), 2, 1), (lambda v: v.maximum(3), 3, 0), (lambda v: v.relu(), 2, 1), (lambda v: (-v).relu(), 0, 0),
    (lambda v: v.tanh(), math.tanh(2), 1/math.cosh(2)**2),
    (lambda v: v.sigmoid(), 1/(1 + math.exp(-2)), math.exp(-2)/(1 + math.exp(-2))**2)])
def test_an_operation_by_hand(f, data, grad):
    v = Value(2)
    out = f(v)
    out.backward()
    assert (out.data, v.grad, out.grad) == (pytest.approx(data, rel=1e-12), pytest.approx(grad, rel=1e-12), 1.)


def test_where_the_maximum_has_a_corner_the_second_gets_the_gradient():
    a, b = Value(1), Value(1)
    a.maximum(b).backward()
    zero = Value(0)
    zero.relu().backward()
    assert (a.grad, b.grad, zero.grad) == (0., 1., 0.)                     # so ReLU's slope at 0 is 0, as PyTorch has it


def test_far_out_nothing_overflows():
    assert Value(1000).sigmoid().data == 1. and Value(-1000).sigmoid().data == 0.
    assert Value(1000).tanh().data == 1. and Value(-1000).tanh().slopes == (0.,)
    assert Value(-4).sigmoid().data == pytest.approx(1/(1 + math.exp(4)), rel=1e-12)


def test_a_value_says_what_it_was_made_from():
    a, b = Value(3), Value(4)
    out = a*b
    assert (out.op, out.parents, out.slopes) == ('×', (a, b), (4., 3.))
    assert (a.data, a.grad, a.op, a.parents, a.slopes) == (3., 0., '', (), ()) and type(a.data) is float
    assert repr(out) == 'Value(12, grad=0)'


# What micrograd is known to get wrong, or doesn't have.

def small(cls):
    a, b, c = cls(2.), cls(-3.), cls(10.)
    total = a*b + c
    return a, total, total*total


def test_a_second_backward_adds_up_for_what_was_given_and_not_between():
    a, total, loss = small(Value)
    for calls in (1, 2, 3):
        loss.backward()
        assert (a.grad, total.grad, loss.grad) == (-24.*calls, 8., 1.)
    total.backward()                                        # from another place in the same graph
    assert (a.grad, total.grad) == (-75., 1.)
    a.backward()
    assert a.grad == -74.
    theirs, _, their_loss = small(micrograd.engine.Value)
    for _ in range(2): their_loss.backward()
    assert theirs.grad == -96                               # micrograd passes on what was left of the first call


def test_a_node_used_twice():
    a = Value(3)
    b = a + a
    (b*b).backward()
    assert (b.grad, a.grad) == (12., 24.)
    both = Value(3)
    (both*both*both).backward()
    assert both.grad == 27.


def test_exponents_that_are_values():
    a, b = Value(3), Value(-1.5)
    out = a**b
    out.backward()
    assert out.data == pytest.approx(3**-1.5, rel=1e-12)
    assert a.grad == pytest.approx(-1.5*3**-2.5, rel=1e-12) and b.grad == pytest.approx(3**-1.5*math.log(3), rel=1e-12)
    with pytest.raises(AssertionError): micrograd.engine.Value(3.)**micrograd.engine.Value(-1.5)


def test_the_order_is_one_in_which_parents_come_first():
    a, total, loss = small(Value)
    order = loss.topological_order()
    assert len(order) == len(set(order)) == 6 and order[-1] is loss
    assert all(order.index(p) < order.index(v) for v in order for p in v.parents)
    assert a.topological_order() == [a]


def test_deep_graphs_need_no_recursion():
    x = Value(1)
    out = sum(x*1 for _ in range(10_000))
    for _ in range(20_000): out = out + 0
    out.backward()
    assert x.grad == 10_000
    del out                                                 # nor does throwing them away


@pytest.mark.parametrize('number', [3, np.float64(3), np.float32(3), np.int64(3)])
def test_numbers_of_other_types(number):
    "On the right any number will do; NumPy's on the left too, since it hands a number that it can't add to `Value`."
    for out in (Value(2)*number, number*Value(2), Value(3) + number, number + Value(3), number - Value(-3)):
        assert isinstance(out, Value) and out.data == 6 and type(out.data) is float


# What is refused.

@pytest.mark.parametrize('f, error, message', [
    (lambda: Value('1'), TypeError, 'must be real number'), (lambda: Value(None), TypeError, 'must be real number'),
    (lambda: Value(1) + '2', TypeError, 'must be real number'), (lambda: Value(-8)**(1/3), TypeError, 'not complex'),
    (lambda: Value(math.nan), ValueError, 'the value is nan; expected a finite number'),
    (lambda: Value(1)*math.inf, ValueError, 'the value is inf'), (lambda: Value(1e200)*1e200, ValueError, 'the value is inf'),
    (lambda: Value(1)/0, ZeroDivisionError, 'division'), (lambda: Value(0)**-1, ZeroDivisionError, 'negative power'),
    (lambda: Value(1000).exp(), OverflowError, 'range'), (lambda: Value(0).log(), ValueError, 'domain|positive'),
    (lambda: Value(-1)**Value(2), ValueError, 'domain|positive'), (lambda: show_graph(sum(Value(1) for _ in range(30))), ValueError, 'made from 61'),
    (lambda: Neuron(0), ValueError, 'n_in is 0'), (lambda: Layer(2, 0), ValueError, 'n_out is 0'),
    (lambda: Layer(2, 2, 'RELU'), ValueError, "activation is 'RELU'; expected one of relu, sigmoid, tanh, none"),
    (lambda: Neuron(2)([1]), ValueError, 'there are 1 inputs; expected 2'),
    (lambda: cross_entropy([Value(1)]*3, 3), ValueError, 'target is 3; expected a class from 0 to 2'),
    (lambda: cross_entropy([Value(1)]*3, -1), ValueError, 'target is -1')])
def test_refused(f, error, message):
    with pytest.raises(error, match=message): f()


# Nets.

def test_a_neuron_by_hand_with_each_activation():
    for name, expected in dict(relu=0., none=-3.5, tanh=math.tanh(-3.5), sigmoid=1/(1 + math.exp(3.5))).items():
        neuron = Neuron(2, name)
        neuron.weights, neuron.bias = [Value(3), Value(-1)], Value(.5)
        assert neuron([0, 4]).data == pytest.approx(expected, rel=1e-12)
    assert set(activations) == {'relu', 'none', 'tanh', 'sigmoid'} and Neuron(2).activation == 'relu'


def test_a_plain_zero_is_left_out_and_a_value_of_zero_is_not():
    neuron = Neuron(3, 'none')
    neuron.weights, zero = [Value(5), Value(7), Value(2)], Value(0)
    plain, asked = neuron([0, 1, 3]), neuron([zero, 1, 3])
    assert plain.data == asked.data == 13.
    assert neuron.weights[0] not in plain.topological_order() and neuron.weights[0] in asked.topological_order()
    asked.backward()
    assert zero.grad == 5. and [w.grad for w in neuron.weights] == [0., 1., 3.]
    v = Value(0)
    net = Net(Layer(3, 1, 'none'))
    net.layers[0].neurons = [neuron]
    net([v, 1, 0])[0].backward()
    assert v.grad == 5.


def test_a_start_is_drawn_from_its_generator_and_scaled():
    layer = Layer(400, 25, 'tanh', random.Random(0))
    drawn = [w.data for n in layer.neurons for w in n.weights]
    rng = random.Random(0)
    assert drawn == [rng.gauss(0, .05) for _ in range(10_000)]             # 1/√400
    assert all(n.bias.data == 0 and n.activation == 'tanh' for n in layer.neurons) and len(layer.neurons) == 25


@pytest.mark.parametrize('scores', [[2., 1., -1.], [0., 0.], [700., -700., 3.], [1e16, 1e16], [1e6, -1e6]])
def test_softmax_and_cross_entropy_against_pytorch(scores):
    for target in range(len(scores)):
        ours, z = [Value(s) for s in scores], torch.tensor(scores, dtype=torch.float64, requires_grad=True)
        loss, expected = cross_entropy(ours, target), F.cross_entropy(z[None], torch.tensor([target]))
        loss.backward()
        expected.backward()
        assert loss.data == pytest.approx(expected.item(), rel=1e-12, abs=1e-15)
        assert [v.grad for v in ours] == pytest.approx(z.grad.tolist(), rel=1e-9, abs=1e-12)
    assert [p.data for p in softmax(ours)] == pytest.approx(z.softmax(0).tolist(), rel=1e-12, abs=1e-300)
    assert sum(p.data for p in softmax(ours)) == pytest.approx(1)


def small_net(): return Net(Layer(3, 4, 'relu', random.Random(0)), Layer(4, 2, 'none', random.Random(1)))


def tensors(net):
    return [torch.tensor(part, dtype=torch.float64, requires_grad=True) for layer in net.layers for part in
            ([[w.data for w in n.weights] for n in layer.neurons], [n.bias.data for n in layer.neurons])]


def test_fifty_steps_are_those_of_pytorch():
    net, rng = small_net(), random.Random(2)
    params = tensors(net)
    assert len(net.params()) == 3*4 + 4 + 4*2 + 2
    for _ in range(50):
        x, target = [rng.gauss(0, 1)*rng.randrange(2) for _ in range(3)], rng.randrange(2)
        w1, b1, w2, b2 = params
        scores = (torch.tensor(x, dtype=torch.float64)@w1.T + b1).relu()@w2.T + b2
        assert net.predict(x) == pytest.approx(scores.softmax(0).tolist(), rel=1e-9)
        loss = F.cross_entropy(scores[None], torch.tensor([target]))
        assert net.learn(x, target, .1) == pytest.approx(loss.item(), rel=1e-9)
        for p, g in zip(params, torch.autograd.grad(loss, params)): p.data -= .1*g
    assert [p.data for layer in tensors(net) for p in layer.flatten()] == pytest.approx(
        [p.item() for layer in params for p in layer.flatten()], rel=1e-9)


def test_each_step_begins_with_gradients_of_zero():
    net = small_net()
    for p in net.params(): p.grad = 1e9
    again = small_net()
    assert net.learn([1, 2, 3], 0, .1) == again.learn([1, 2, 3], 0, .1)
    assert [p.data for p in net.params()] == [p.data for p in again.params()]


@pytest.mark.parametrize('inputs, target, lr, error', [
    ([1, 2], 0, .1, ValueError), ([1, math.nan, 3], 0, .1, ValueError), ([1, '2', 3], 0, .1, TypeError),
    ([1, 2, 3], 2, .1, ValueError), ([1, 2, 3], 0, 0, ValueError), ([1, 2, 3], 0, '1', TypeError)])
def test_a_refused_step_changes_nothing(inputs, target, lr, error):
    net = small_net()
    before = [p.data for p in net.params()]
    with pytest.raises(error): net.learn(inputs, target, lr)
    assert [p.data for p in net.params()] == before


def test_an_input_becomes_one_value_for_all_neurons_and_a_blank_pixel_none():
    net = Net(Layer(3, 5, 'none', random.Random(0)))
    outs = net([1, 0, 3])
    made_from = {v for out in outs for v in out.topological_order()}
    assert sum(v.op == '' for v in made_from) == 2 + 3*5          # two inputs, and of each neuron two weights and the bias
    assert not made_from & {neuron.weights[1] for neuron in net.layers[0].neurons}


def test_a_graph_is_drawn_from_left_to_right_with_all_that_it_has():
    a, total, loss = small(Value)
    loss.backward()
    picture = show_graph(loss, {a: 'a'})
    places = {t.get_text().split('\n')[0]: t.get_position()[0] for t in picture.fig.axes[0].texts if 'grad' in t.get_text()}
    assert places['a'] < places['+'] <= places['×'] == 0
    said = {t.get_text() for t in picture.fig.axes[0].texts}
    assert {'a\nvalue 2\ngrad -24', '+\nvalue 4\ngrad 8', '4 and 4', '-3'} <= said
    assert picture.alt.startswith('A computation graph: ') and 'a 2 with gradient -24' in picture.alt
