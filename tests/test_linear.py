"Chapter 02: numbers worked by hand, PyTorch as the witness, and what the functions refuse."
import copy, math, warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn, tensor

from mnist_foundations.data import BatchLoader
from mnist_foundations.linear import calc_grad, init_params, linear1, mnist_loss, train_epoch
from no_float64 import there

devices = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU'))]

# One plausible wrong answer for each exercise that has a checker.
wrong_answers = ['my_product = [[3, 5], [1, 13]]', 'my_first_loss = 0.',
                 'def my_step(p, lr):\n    with torch.no_grad(): p -= lr*p.grad.sign()', 'my_lines = [2, 3, 1]', 'my_score = 8']


def digits(n=50, device='cpu'):
    "n random images, and for each a target of 1 or 0 in a column."
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 784, generator=g).to(device), torch.randint(2, (n, 1), generator=g).float().to(device)


def start(device='cpu'):
    torch.manual_seed(0)
    return [init_params((784, 1), .05, device), init_params(1, .05, device)]


def model_of(params): return lambda xb: linear1(xb, *params)


# The start: the same draws as ever, and as wide as asked.

def test_the_same_seed_draws_the_numbers_of_version_0_1_0():
    torch.manual_seed(0)
    few = init_params(3)
    torch.manual_seed(3)
    many = init_params((784, 1), .5)                      # 16 numbers and more are drawn in another way
    assert few.tolist() == [1.5409960746765137, -0.293428897857666, -2.1787893772125244]
    assert many.flatten()[[0, 1, 400, 783]].tolist() == [-0.038322146981954575, 0.17994076013565063, 0.6049525737762451, 0.4490185081958771]
    assert few.is_leaf and few.requires_grad and few.dtype == torch.float32


@pytest.mark.parametrize('std', [1., .5, .05])
def test_the_start_is_as_wide_as_asked(std):
    torch.manual_seed(0)
    drawn = init_params(100_000, std).detach()
    assert drawn.std().item() == pytest.approx(std, rel=.01) and abs(drawn.mean().item()) < .01*std


def test_a_start_of_zeros_and_one_that_is_refused():
    assert torch.equal(init_params((2, 3), 0), torch.zeros(2, 3))
    for std in (-1, float('nan')):
        with pytest.raises(ValueError, match='std is .* expected 0 or more'): init_params(3, std)


# The model.

def test_a_layer_by_hand():
    x = tensor([[1., 2.], [0., 3.]])
    assert linear1(x, tensor([[10.], [1.]]), tensor([.5])).tolist() == [[12.5], [3.5]]
    assert linear1(x, tensor([[10., 1.], [5., -1.]]), tensor([0., 100.])).tolist() == [[20., 99.], [15., 97.]]


def test_a_layer_is_that_of_pytorch():
    x, (w, b) = digits()[0], start()
    torch.testing.assert_close(linear1(x, w, b), F.linear(x, w.T, b))


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int64])
def test_integer_images(dtype):
    with pytest.raises(TypeError, match=f'{dtype}; expected floating point'):
        linear1(torch.zeros(2, 784, dtype=dtype), torch.zeros(784, 1), torch.zeros(1))


@pytest.mark.parametrize('shapes, named', [(((784,), (784, 1), (1,)), r'xb has the shape \(784,\)'),
                                           (((2, 783), (784, 1), (1,)), r'weights \(784, 1\)'),
                                           (((2, 784), (784,), (1,)), r'weights \(784,\)'),
                                           (((2, 784), (784, 1), (2,)), r'bias has the shape \(2,\)')])
def test_layers_that_do_not_fit(shapes, named):
    with pytest.raises(ValueError, match=named): linear1(*map(torch.zeros, shapes))


# The loss. The sigmoid of log 3 is 3/4, and its slope there 3/4 * 1/4 = 3/16.

@pytest.mark.parametrize('score, target, loss, slope', [(0., 1, .5, -.25), (0., 0, .5, .25),
                                                        (math.log(3), 1, .25, -3/16), (math.log(3), 0, .75, 3/16),
                                                        (-math.log(3), 1, .75, -3/16)])
def test_one_loss_and_its_slope_by_hand(score, target, loss, slope):
    z = tensor([[score]]).requires_grad_()
    found = mnist_loss(z, tensor([[float(target)]]))
    found.backward()
    assert found.item() == pytest.approx(loss, abs=1e-6) and z.grad.item() == pytest.approx(slope, abs=1e-6)


def test_the_loss_of_several_is_their_mean_and_each_has_its_share_of_the_slope():
    z = tensor([[0.], [math.log(3)], [math.log(3)]]).requires_grad_()
    loss = mnist_loss(z, tensor([[0.], [1.], [0.]]))
    loss.backward()
    assert loss.item() == pytest.approx((.5 + .25 + .75)/3, abs=1e-6)
    assert z.grad.flatten().tolist() == pytest.approx([.25/3, -3/48, 3/48], abs=1e-6)


def test_gradients_in_float64():
    params = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((6, 1), 1)]
    x, t = torch.rand(5, 6, dtype=torch.float64), tensor([[0.], [1.], [1.], [0.], [1.]])
    assert torch.autograd.gradcheck(lambda w, b: mnist_loss(linear1(x, w, b), t), params)


@pytest.mark.parametrize('to', [lambda t: t.int(), lambda t: t.long(), lambda t: t.bool(), lambda t: t.double(),
                                lambda t: t.numpy(), lambda t: t.numpy().astype(np.int64)])
def test_targets_of_any_type_mean_the_same(to):
    z, t = tensor([[2.], [-1.], [.5]]), tensor([[1.], [0.], [0.]])
    found = mnist_loss(z, to(t))
    assert torch.equal(found, mnist_loss(z, t)) and found.dtype == torch.float32


@pytest.mark.parametrize('predicted, targets', [((4, 10), (4,)), ((4, 1), (4,)), ((4,), (4, 1)), ((4, 10), (4, 1)),
                                                ((4, 10), (3, 10))])
def test_shapes_that_would_broadcast(predicted, targets):
    with pytest.raises(ValueError, match='predictions have the shape .* expected the same'):
        mnist_loss(torch.zeros(predicted), torch.zeros(targets))


@pytest.mark.parametrize('bad', [2., -1., .5, float('nan')])
def test_targets_outside_0_and_1(bad):
    with pytest.raises(ValueError, match='expected only 0 and 1'): mnist_loss(torch.zeros(2, 1), tensor([[1.], [bad]]))


def test_empty_batch():
    with pytest.raises(ValueError, match='the batch is empty'): mnist_loss(torch.zeros(0, 1), torch.zeros(0, 1))


# An epoch, by hand: the model is one number times the image, the loss the mean of its answers.

def mean_answer(predictions, targets): return predictions.mean()


def test_a_step_goes_against_the_gradient_by_lr_times_its_size():
    p = torch.ones(1).requires_grad_()
    x = tensor([[2.], [4.]])                              # the loss is 3p, its slope 3
    assert train_epoch(lambda xb: xb*p, .1, [p], [(x, x)], mean_answer) == pytest.approx(3.)
    assert p.item() == pytest.approx(1 - .1*3) and p.grad is None


def test_each_batch_steps_from_where_the_one_before_it_ended():
    p = torch.ones(1).requires_grad_()
    one = torch.ones(1, 1)                                # the loss is p**2, its slope 2p: each step takes away a fifth
    losses = train_epoch(lambda xb: xb*p**2, .1, [p], [(one, one)]*3, mean_answer)
    assert p.item() == pytest.approx(.8**3)
    assert losses == pytest.approx((1 + .8**2 + .8**4)/3)


def test_the_mean_loss_counts_images_and_not_batches():
    p = torch.zeros(1).requires_grad_()
    batches = [(tensor([[.2], [.4]]), torch.zeros(2, 1)), (tensor([[.9]]), torch.zeros(1, 1))]
    assert train_epoch(lambda xb: xb + 0*p, 1., [p], batches, mean_answer) == pytest.approx(.5)    # and not .6


def test_calc_grad_adds_to_what_is_there_and_returns_the_bare_loss():
    p, x = torch.ones(1).requires_grad_(), tensor([[2.], [4.]])
    losses = [calc_grad(x, x, lambda xb: xb*p, mean_answer) for _ in range(2)]
    assert losses == [3., 3.] and not losses[0].requires_grad and p.grad.item() == 6.


@pytest.mark.parametrize('device', devices)
def test_an_epoch_is_that_of_torch_optim(device):
    params, (x, t) = start(device), digits(device=device)
    dl = BatchLoader(x, t, 20, shuffle=True, generator=torch.Generator().manual_seed(0))     # the last batch is short
    theirs = [p.detach().clone().requires_grad_() for p in params]
    opt, losses = torch.optim.SGD(theirs, lr=2.), []
    for xb, tb in dl:
        loss = (torch.sigmoid(F.linear(xb, theirs[0].T, theirs[1])) - tb).abs().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item()*len(xb))
    dl.generator.manual_seed(0)
    ours = train_epoch(model_of(params), 2., params, dl)
    assert ours == pytest.approx(sum(losses)/len(x), rel=1e-5)
    for p, q in zip(params, theirs): torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_old_gradients_do_not_leak_in():
    a, b = start(), start()
    calc_grad(*digits(), model_of(a))                     # leaves gradients behind
    for params in (a, b): train_epoch(model_of(params), .1, params, [digits()])
    for p, q in zip(a, b): assert torch.equal(p, q)


def test_params_may_be_a_generator_and_model_a_module():
    layer = nn.Linear(784, 1)
    before = layer.weight.detach().clone()
    train_epoch(layer, .1, layer.parameters(), [digits()])
    assert not torch.equal(layer.weight, before) and layer.weight.grad is None


def test_nothing_asks_for_float64():
    x, t = map(there, digits())
    with pytest.raises(TypeError, match='no float64'): x.double()
    params = [there(p) for p in start()]
    assert 0 < train_epoch(model_of(params), .1, params, [(x[:30], t[:30]), (x[30:], t[30:])]) < 1


# Errors before, in, and after the loop leave the parameters as they were.

def train(params=None, **change):
    params = start() if params is None else params
    args = dict(model=model_of(start()), lr=.1, params=params, dl=[digits()]) | change
    return train_epoch(**args)


@pytest.mark.parametrize('lr, error', [(0, ValueError), (-1., ValueError), (float('nan'), ValueError),
                                       (float('inf'), ValueError), ('1', TypeError), (None, TypeError), (True, TypeError)])
def test_lr(lr, error):
    with pytest.raises(error, match='lr is .* expected a positive number'): train(lr=lr)


def test_params():
    with pytest.raises(ValueError, match='params is empty'): train(params=[])
    with pytest.raises(ValueError, match=r'params\[0\] does not require a gradient'): train(params=[torch.zeros(3)])
    with pytest.raises(ValueError, match=r'params\[0\] got no gradient'): train(params=[init_params(3)])
    with pytest.raises(ValueError, match=r'params\[1\] has values that are not finite'):
        train(params=[init_params(3), tensor([float('nan')]).requires_grad_()])


def test_no_batches():
    with pytest.raises(ValueError, match='dl has no batches'): train(dl=[])


def test_a_loss_that_is_not_finite_names_the_batch_and_puts_the_parameters_back():
    params, (x, t) = start(), digits()
    kept = copy.deepcopy([p.detach() for p in params])
    batches = [(x[:20], t[:20]), (x[20:40]*float('nan'), t[20:40]), (x[40:], t[40:])]
    with pytest.raises(ValueError, match=r'in batch 1 of 3; lr=0.1 is likely too large'):
        train_epoch(model_of(params), .1, params, batches)
    for p, old in zip(params, kept): assert torch.equal(p, old)


def test_an_error_in_the_second_batch_puts_back_what_the_first_changed():
    params, (x, t) = start(), digits()
    kept = copy.deepcopy([p.detach() for p in params])
    with pytest.raises(ValueError, match='targets'):
        train_epoch(model_of(params), .1, params, [(x, t), (x, t[:, 0])])
    for p, old in zip(params, kept): assert torch.equal(p, old)


def test_a_rate_that_explodes_is_named_and_the_parameters_survive():
    params, (x, t) = start(), digits(200)
    kept = copy.deepcopy([p.detach() for p in params])
    with pytest.raises(ValueError, match='lr=10000.0 is likely too large'):
        train_epoch(model_of(params), 1e4, params, BatchLoader(x, t, 5), F.mse_loss)
    for p, old in zip(params, kept): assert torch.equal(p, old)


def test_a_last_step_that_overflows_is_noticed():
    p = torch.ones(1).requires_grad_()
    with pytest.raises(ValueError, match='in the last step'):
        train_epoch(lambda xb: xb*p*1e30, 1e30, [p], [(torch.ones(1, 1), torch.ones(1, 1))], mean_answer)
    assert p.item() == 1


# The order of the labels.

def test_labels_in_order_are_warned_of_once_and_shuffled_ones_never():
    x, t = digits()
    rows = t[:, 0].argsort()
    params, dl = start(), BatchLoader(x[rows], t[rows], 20)
    with pytest.warns(UserWarning, match='the labels come in order'): train_epoch(model_of(params), .1, params, dl)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        train_epoch(model_of(params), .1, params, dl)
        train_epoch(model_of(params), .1, params, BatchLoader(x[rows], t[rows], 20, shuffle=True))
        train_epoch(model_of(params), .1, params, BatchLoader(x, t, 20))


# Other people's loops.

def test_loaders_of_others_fit():
    from fastai.basics import DataLoader as FastDataLoader
    from torch.utils.data import DataLoader, TensorDataset
    x, t = digits()
    ended = []
    for dl in (BatchLoader(x, t, 20), FastDataLoader(list(zip(x, t)), batch_size=20), DataLoader(TensorDataset(x, t), 20)):
        params = start()
        with warnings.catch_warnings():
            warnings.simplefilter('error', UserWarning)       # torch's loader has an `in_order` of another meaning
            train_epoch(model_of(params), 1., params, dl)
        ended.append(params[0].detach())
    for weights in ended[1:]: torch.testing.assert_close(weights, ended[0])


def test_learner_takes_the_loss_as_it_is():
    from fastai.basics import DataLoader, DataLoaders, Learner, SGD
    x, t = digits()
    params, layer = start(), nn.Linear(784, 1)
    with torch.no_grad():
        layer.weight.copy_(params[0].T)
        layer.bias.copy_(params[1])
    dl = DataLoader(list(zip(x, t)), batch_size=20)
    learn = Learner(DataLoaders(dl, dl), layer, loss_func=mnist_loss, opt_func=SGD)
    with learn.no_logging(): learn.fit(1, lr=.1)
    train_epoch(model_of(params), .1, params, BatchLoader(x, t, 20))
    torch.testing.assert_close(layer.weight.T, params[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('device', devices)
def test_works_where_its_input_is(device):
    params = start(device)
    assert all(p.device.type == device for p in params)
    assert linear1(digits(device=device)[0], *params).device.type == device
    assert train_epoch(model_of(params), .1, params, [digits(device=device)]) > 0
