"Chapter 11: windows worked by hand, both directions beside PyTorch's, the two nets, the recipe, and what a net looks at."
import copy, pickle, time
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn, tensor
from torch.testing import assert_close

from long_experiments import SHARED, check_again, needs_all, piles, recorded_rows, script, takes_minutes
from mnist_foundations.convolution import (LeNet5, SmallConvNet, as_images, conv2d, conv2d_backward, conv_size, max_pool,
                                           occlusion, receptive_field, train_conv)
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, one_hot
from mnist_foundations.deep import BatchNorm
from mnist_foundations.distortion import Distort
from mnist_foundations.keeping import load_model, save_model
from mnist_foundations.net import validate_epoch
from mnist_foundations.optimizers import one_cycle
from mnist_foundations.training import fit

devices = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU'))]
on_each_device = pytest.mark.parametrize('device', devices)
RECIPE = dict(epochs=20, lr=.1, widths=(16, 32, 64), batch_size=128, momentum=.9, weight_decay=5e-4)

wrong_answers = ['my_sizes = [13, 6, 4]', 'my_filter = tensor([[-1., -1., -1.], [0., 0., 0.], [1., 1., 1.]])',
                 'def my_unfold(image, size): return F.unfold(image.T[None, None], size)[0]',
                 'my_count = 8*3*25 + 2*8 + 16*8*9', 'def my_edges(image, kernel): return broken_edges(image, kernel)']


def some(*shape, seed=0, dtype=torch.float32, device='cpu'):
    "Normal random numbers."
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device, dtype)


def digits(n=50, device='cpu'):
    "n random images with their labels."
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 784, generator=g).to(device), torch.randint(10, (n,), generator=g).to(device)


def image(rows): return tensor(rows)[None, None]


# Places of a window.

@pytest.mark.parametrize('places, arguments', [
    (26, (28, 3)), (28, (28, 5, 1, 2)), (14, (28, 5, 2, 2)), (13, (28, 4, 2)), (13, (28, 3, 2)), (14, (28, 2, 2)),
    (1, (3, 3)), (1, (3, 3, 9)), (3, (1, 1, 1, 1)), (2, (1, 1, 2, 1)), (1, (1, 5, 1, 2)), (4, (10, 1, 3)), (3, (9, 1, 3))])
def test_places_by_hand(places, arguments): assert conv_size(*arguments) == places


def test_as_many_places_as_pytorch_finds():
    for size, kernel, stride, padding in product(range(1, 8), range(1, 5), range(1, 4), range(3)):
        arguments = size, kernel, stride, padding
        if kernel > size + 2*padding:
            with pytest.raises(ValueError, match=f'kernel is {kernel}; expected at most {size + 2*padding}'): conv_size(*arguments)
        else:
            theirs = F.conv2d(torch.zeros(1, 1, size, 9), torch.zeros(1, 1, kernel, 2), stride=stride, padding=padding)
            assert conv_size(*arguments) == theirs.shape[2]


@pytest.mark.parametrize('change, said', [
    (dict(size=0), 'size is 0; expected a whole number, at least 1'), (dict(kernel=0), 'kernel is 0'), (dict(stride=0), 'stride is 0'),
    (dict(padding=-1), 'padding is -1; expected a whole number, at least 0'), (dict(size=28.), r'size is 28\.0'),
    (dict(kernel=2.5), 'kernel is 2.5'), (dict(stride=.5), 'stride is 0.5'), (dict(padding=.5), 'padding is 0.5'),
    (dict(kernel=33), 'kernel is 33; expected at most 32, the pixels with padding')])
def test_windows_that_have_no_place(change, said):
    with pytest.raises(ValueError, match=said): conv_size(**dict(size=28, kernel=3, stride=1, padding=2) | change)


# Convolution, forwards.

def test_a_window_by_hand():
    xb = image([[1., 2, 3, 4], [5, 6, 7, 8], [9, 0, 1, 2]])
    weights = image([[1., 0, -1], [2, 0, 0]])                        # the first place: 1 - 3 + 2·5
    assert torch.equal(conv2d(xb, weights), image([[8., 10], [16, -2]]))


def test_channels_filters_and_bias_by_hand():
    xb = tensor([[[[1., 2], [3, 4]], [[5, 6], [9, 8]]]])
    weights = tensor([[[[1., 10]], [[100, 1000]]], [[[0, 1]], [[-1, 0]]]])
    expected = tensor([[[[6521.], [8943]], [[-3], [-5]]]])           # 1 + 20 + 500 + 6000, below 3 + 40 + 900 + 8000
    assert torch.equal(conv2d(xb, weights), expected)
    assert torch.equal(conv2d(xb, weights, tensor([.5, -1])), expected + tensor([[[[.5]], [[-1]]]]))


def test_stride_and_padding_by_hand():
    xb, weights = image([[1., 2], [3, 4]]), image([[1., 10], [100, 1000]])
    assert torch.equal(conv2d(xb, weights, padding=1), image([[1000., 2100, 200], [3010, 4321, 402], [30, 43, 4]]))
    assert torch.equal(conv2d(xb, weights, stride=2, padding=1), image([[1000., 200], [30, 4]]))
    assert torch.equal(conv2d(xb, weights, None, 3), image([[4321.]]))


@on_each_device
@pytest.mark.parametrize('stride, padding', [*product((1, 2, 3), (0, 1, 2))])
def test_convolves_as_pytorch_does(stride, padding, device):
    for n, c, k, size, kernel in product((1, 3), (1, 2), (1, 4), ((6, 9), (8, 5)), ((1, 1), (3, 2), (2, 5), (5, 3))):
        xb, weights, bias = some(n, c, *size), some(k, c, *kernel, seed=1), some(k, seed=2)
        for b in (bias, None):
            ours = conv2d(xb.to(device), weights.to(device), b if b is None else b.to(device), stride, padding)
            assert ours.device.type == device
            assert_close(ours.cpu(), F.conv2d(xb, weights, b, stride, padding), atol=1e-5, rtol=1e-5)


@on_each_device
@pytest.mark.parametrize('dtype, near', [(torch.float64, 1e-12), (torch.float16, .05), (torch.bfloat16, .2)])
def test_convolves_in_the_dtype_of_its_images(dtype, near, device):
    xb, weights, bias = some(2, 3, 6, 5, dtype=dtype), some(4, 3, 3, 2, seed=1, dtype=dtype), some(4, seed=2, dtype=dtype)
    ours = conv2d(xb.to(device), weights.to(device), bias.to(device), 2, 1)
    assert (ours.dtype, ours.device.type) == (dtype, device)
    assert_close(ours.cpu().double(), F.conv2d(xb.double(), weights.double(), bias.double(), 2, 1), atol=near, rtol=0)


def test_how_the_images_lie_in_memory_is_no_matter():
    xb, weights, bias = some(2, 3, 6, 5), some(4, 3, 3, 2, seed=1), some(4, seed=2)
    expected, wide = conv2d(xb, weights, bias, 2, 1), torch.cat([xb, xb], 3)[..., :5]
    last = xb.to(memory_format=torch.channels_last), weights.to(memory_format=torch.channels_last)
    for a, w in (last, (xb.transpose(2, 3).contiguous().transpose(2, 3), weights), (wide, weights.flip(0).flip(0)), (xb, last[1])):
        before = a.clone()
        assert_close(conv2d(a, w, bias, 2, 1), expected)
        assert torch.equal(a, before)


def test_no_image_and_one_image():
    xb, weights = some(3, 2, 5, 4), some(4, 2, 3, 3, seed=1)
    assert_close(conv2d(xb[:1], weights), conv2d(xb, weights)[:1])
    assert conv2d(xb[:0], weights).shape == (0, 4, 3, 2)


def test_gradients_flow_through_a_convolution():
    inputs = [t.requires_grad_() for t in (some(2, 2, 4, 3, dtype=torch.float64), some(3, 2, 2, 3, dtype=torch.float64),
                                           some(3, dtype=torch.float64))]
    assert torch.autograd.gradcheck(lambda xb, weights, bias: conv2d(xb, weights, bias, 2, 1), inputs)


@pytest.mark.parametrize('xb, weights, bias, kind, said', [
    ((2, 3, 5, 5), (4, 2, 3, 3), None, ValueError, r'weights \(4, 2, 3, 3\); expected filters for 3 channels'),
    ((2, 3, 5, 5), (4, 3, 3, 3), (3,), ValueError, r'bias has the shape \(3,\); expected \(4,\)'),
    ((3, 5, 5), (4, 3, 3, 3), None, ValueError, r'xb has the shape \(3, 5, 5\); expected \(n,c,h,w\)'),
    ((2, 3, 5, 5), (4, 3, 9), None, ValueError, r'weights has the shape \(4, 3, 9\)'),
    ((2, 3, 5, 5), (4, 3, 3, 6), None, ValueError, 'kernel is 6; expected at most 5')])
def test_what_can_not_be_convolved(xb, weights, bias, kind, said):
    with pytest.raises(kind, match=said): conv2d(torch.zeros(xb), torch.zeros(weights), bias if bias is None else torch.zeros(bias))


def test_bytes_are_refused():
    with pytest.raises(TypeError, match='xb is torch.uint8; expected floating point'): conv2d(torch.ones(1, 1, 3, 3).byte(), torch.ones(1, 1, 3, 3))


# And backwards.

def test_gradients_of_one_place_and_of_a_filter_of_one_pixel_by_hand():
    xb, weights = image([[1., 2], [3, 4]]), image([[1., 10], [100, 1000]])
    by_xb, by_weights, by_bias = conv2d_backward(image([[2.]]), xb, weights)
    assert torch.equal(by_xb, 2*weights) and torch.equal(by_weights, 2*xb) and torch.equal(by_bias, tensor([2.]))
    by_xb, by_weights, by_bias = conv2d_backward(image([[1., 0], [0, 10]]), xb, image([[5.]]))
    assert torch.equal(by_xb, image([[5., 0], [0, 50]])) and torch.equal(by_weights, image([[41.]]))      # 1 + 4·10
    assert torch.equal(by_bias, tensor([11.]))


def test_gradients_with_stride_and_padding_by_hand():
    grad, xb, weights = image([[1., 2], [3, 4]]), image([[1., 2], [3, 4]]), image([[1., 10], [100, 1000]])
    by_xb, by_weights, by_bias = conv2d_backward(grad, xb, weights, 2, 1)       # each place sees a single pixel, in another corner
    assert torch.equal(by_xb, image([[1000., 200], [30, 4]])) and torch.equal(by_weights, image([[16., 9], [4, 1]]))
    assert torch.equal(by_bias, tensor([10.]))


@on_each_device
@pytest.mark.parametrize('dtype, near', [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize('stride, padding', [*product((1, 2, 3), (0, 1, 2))])
def test_the_gradients_are_autograds(stride, padding, dtype, near, device):
    remainders = set()
    for size, kernel in product(((6, 9), (8, 7), (5, 5)), ((1, 1), (3, 2), (2, 5), (4, 4))):
        remainders |= {(size[i] + 2*padding - kernel[i])%stride for i in range(2)}
        xb, weights, bias = (some(*shape, seed=i, dtype=dtype).requires_grad_() for i, shape in enumerate(((2, 3, *size), (4, 3, *kernel), (4,))))
        out = F.conv2d(xb, weights, bias, stride, padding)
        grad = some(*out.shape, seed=3, dtype=dtype)
        out.backward(grad)
        ours = conv2d_backward(*(t.detach().to(device) for t in (grad, xb, weights)), stride, padding)
        for found, t in zip(ours, (xb, weights, bias), strict=True):
            assert (found.dtype, found.device.type) == (dtype, device)
            assert_close(found.cpu(), t.grad, atol=near, rtol=near)
    assert remainders == set(range(stride))              # also where the windows leave some pixels over


def test_gradients_of_images_that_do_not_fit_the_filters_are_refused():
    with pytest.raises(ValueError, match='expected filters for'): conv2d_backward(torch.ones(1, 2, 2, 2), torch.ones(1, 3, 3, 3), torch.ones(2, 1, 2, 2))


# Pooling.

def test_pooled_by_hand():
    assert torch.equal(max_pool(image([[1., 5, 2, 0], [3, -4, 6, 8]])), image([[5., 8]]))
    assert torch.equal(max_pool(image([[-1., -5], [-3, -4], [-9, -7], [-8, -6]])), image([[-1.], [-6]]))
    assert torch.equal(max_pool(image([[1., 2, 9], [3, 4, 9], [9, 9, 9]])), image([[4.]]))         # an odd row and column are dropped
    assert torch.equal(max_pool(image([[1., 2, 9], [3, 4, 9], [9, 9, 10]]), 3), image([[10.]]))


@on_each_device
@pytest.mark.parametrize('size', [1, 2, 3, 4])
def test_pools_as_pytorch_does_and_so_do_its_gradients(size, device):
    for shape in ((2, 3, 8, 12), (1, 1, 5, 7), (3, 2, 4, 9), (0, 2, 4, 5)):
        for xb in (some(*shape, device=device), some(*shape, device=device).to(memory_format=torch.channels_last)):
            a, b = xb.clone().requires_grad_(), xb.clone().requires_grad_()
            outs = max_pool(a, size), F.max_pool2d(b, size)
            assert torch.equal(*outs)
            for out in outs: out.sin().sum().backward()
            assert torch.equal(a.grad, b.grad)


def test_a_window_larger_than_the_image_is_refused():
    for shape in ((1, 1, 2, 5), (1, 1, 5, 2)):
        with pytest.raises(ValueError, match='is 3; expected at most 2'): max_pool(torch.zeros(shape), 3)
    with pytest.raises(ValueError, match='is 0; expected a whole number, at least 1'): max_pool(torch.zeros(1, 1, 2, 2), 0)


# Images.

@pytest.mark.parametrize('n', [0, 1, 5])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16])
def test_rows_of_pixels_become_images_and_no_copies(n, dtype):
    x = torch.arange(n*784.).view(n, 784).to(dtype)
    for xb in (x, x.view(n, 1, 28, 28)):
        images = as_images(xb)
        assert images.shape == (n, 1, 28, 28) and images.dtype == dtype and images.data_ptr() == xb.data_ptr()
        assert torch.equal(images.flatten(1), x)
    if n: assert as_images(x)[-1, 0, 3, 20] == x[-1, 28*3 + 20]


def test_images_that_do_not_lie_in_one_piece():
    x, _ = digits(4)
    for scattered in (x.T.contiguous().T, x.repeat(1, 2)[:, :784]): assert torch.equal(as_images(scattered), x.view(4, 1, 28, 28))


@pytest.mark.parametrize('xb, kind, said', [
    (torch.zeros(2, 783), ValueError, r'xb has the shape \(2, 783\); expected \(n, 784\) or \(n, 1, 28, 28\)'),
    (torch.zeros(2, 3, 28, 28), ValueError, r'\(2, 3, 28, 28\)'), (torch.zeros(784), ValueError, r'\(784,\)'),
    (torch.zeros(2, 1, 14, 56), ValueError, r'\(2, 1, 14, 56\)'), (torch.zeros(2, 784).long(), TypeError, 'xb is torch.int64'),
    ([[0.]*784], TypeError, 'xb is a list')])
def test_what_is_no_image(xb, kind, said):
    for function in (as_images, LeNet5(), SmallConvNet((1, 1, 1))):
        with pytest.raises(kind, match=said): function(xb)


# The nets.

def scrambled(net, seed=0):
    "The net with random parameters, of either sign, and random running statistics."
    for i, t in enumerate([*net.parameters(), *net.buffers()]):
        if t.is_floating_point(): t.data.copy_(some(*t.shape, seed=seed + i)/max(1, t[0].numel())**.5)
    for name, t in net.named_buffers():
        if 'var' in name: t.abs_().add_(.5)
    return net


def n_numbers(net): return sum(p.numel() for p in net.parameters())


def shapes(net, xb):
    "What comes out of each layer."
    found, hooks = [], []
    for layer in net.layers: hooks.append(layer.register_forward_hook(lambda module, given, out: found.append(tuple(out.shape[1:]))))
    net(xb)
    for hook in hooks: hook.remove()
    return found


def by_both_shapes(net, x):
    a, b = net(x), net(x.view(-1, 1, 28, 28))
    assert torch.equal(a, b)
    return a


def test_lenet_layer_by_layer():
    net, (x, _) = scrambled(LeNet5()), digits(3)
    assert n_numbers(net) == 61_706 == (25 + 1)*6 + (25*6 + 1)*16 + (25*16 + 1)*120 + (120 + 1)*84 + (84 + 1)*10
    assert list(dict.fromkeys(shapes(net, x))) == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1), (120,), (84,), (10,)]
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = net.parameters()
    one = F.avg_pool2d(F.conv2d(x.view(-1, 1, 28, 28), w1, b1, padding=2).tanh(), 2)
    two = F.avg_pool2d(F.conv2d(one, w2, b2).tanh(), 2)
    three = F.conv2d(two, w3, b3).tanh().flatten(1)
    assert_close(by_both_shapes(net, x), F.linear(F.linear(three, w4, b4).tanh(), w5, b5))


def test_the_small_net_layer_by_layer():
    net, (x, _) = scrambled(SmallConvNet((3, 4, 5))), digits(6)
    w1, g1, s1, w2, g2, s2, w3, g3, s3, w, b = net.parameters()
    for training in (True, False):
        stats = [t.clone() for t in net.buffers() if t.ndim]
        means, variances = (stats[::2], stats[1::2])
        def norm(t, i, g, s): return F.batch_norm(t, means[i], variances[i], g, s, training)
        one = norm(F.conv2d(x.view(-1, 1, 28, 28), w1, stride=2, padding=2), 0, g1, s1).relu()
        two = norm(F.max_pool2d(F.conv2d(one, w2), 2), 1, g2, s2).relu()
        three = norm(F.max_pool2d(F.conv2d(two, w3), 2), 2, g3, s3).relu()
        assert_close(copy.deepcopy(net).train(training)(x), F.linear(three.flatten(1), w, b), atol=1e-5, rtol=1e-4)
        by_both_shapes(net.train(training), x)


@pytest.mark.parametrize('widths, n_classes', [((16, 32, 64), 10), ((3, 4, 5), 7), ([1, 2, 1], 2)])
def test_the_numbers_of_the_small_net_by_hand(widths, n_classes):
    net, (a, b, c) = SmallConvNet(widths, n_classes), widths
    assert n_numbers(net) == 25*a + 2*a + 9*a*b + 2*b + 9*b*c + 2*c + (4*c + 1)*n_classes
    assert list(dict.fromkeys(shapes(net, digits(2)[0]))) == [(a, 14, 14), (b, 12, 12), (b, 6, 6), (c, 4, 4), (c, 2, 2), (4*c,), (n_classes,)]
    assert net.config == dict(widths=list(widths), n_classes=n_classes)


def test_the_small_net_is_small():
    net = SmallConvNet()
    assert n_numbers(net) == 26_234 < 30_000
    assert net.config == dict(widths=[*RECIPE['widths']], n_classes=10) and net.layers[-1].bias.device.type == 'cpu'
    assert LeNet5().config == dict(n_classes=10) and LeNet5(n_classes=7)(digits(2)[0]).shape == (2, 7)


@on_each_device
def test_the_channels_of_a_filter_lie_together(device):
    net = SmallConvNet(device=device)
    for p in net.parameters():
        assert p.device.type == device
        if p.ndim == 4: assert p.is_contiguous(memory_format=torch.channels_last)
    assert not net.layers[3].weight.is_contiguous() and SmallConvNet(device='meta').layers[3].weight.device.type == 'meta'
    other = SmallConvNet()                                          # one net's choices are not another's
    other.load_state_dict({name: t.contiguous() for name, t in net.state_dict().items()})
    assert other.layers[3].weight.is_contiguous(memory_format=torch.channels_last)


def test_its_normalisation_is_that_of_chapter_06():
    net = scrambled(SmallConvNet((3, 4, 5)))
    ours, (x, _) = copy.deepcopy(net), digits(6)
    for i, layer in enumerate(net.layers):
        if not isinstance(layer, nn.BatchNorm2d): continue
        ours.layers[i] = BatchNorm(layer.num_features)
        ours.layers[i].load_state_dict({name: t for name, t in layer.state_dict().items() if name != 'num_batches_tracked'})
    assert sum(isinstance(layer, BatchNorm) for layer in ours.layers) == 3
    for training in (True, False, True, True, False): assert_close(ours.train(training)(x), net.train(training)(x), atol=1e-5, rtol=1e-4)


def test_a_last_batch_of_one_image_and_none():
    x, y = digits(9)
    net = SmallConvNet((2, 3, 4))
    assert net.train()(x[:1]).shape == (1, 10) and net.eval()(x[:0]).shape == (0, 10) and LeNet5()(x[:0]).shape == (0, 10)
    history = fit(net, BatchLoader(x, y, 4, shuffle=True), None, torch.optim.SGD(net.parameters(), .1), 2)
    assert len(history) == 2 and all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize('make', [lambda: SmallConvNet((2, 3, 4), 7), lambda: LeNet5(7)])
def test_a_net_is_kept_copied_and_pickled(make, tmp_path):
    net, (x, _) = scrambled(make()).eval(), digits(5)
    save_model(net, tmp_path/'net')
    other = make()
    other.load_state_dict(net.state_dict())
    for again in (load_model(tmp_path/'net', make()), copy.deepcopy(net), pickle.loads(pickle.dumps(net)), other.eval()):
        assert torch.equal(again(x), net(x)) and again.config == net.config
        assert [p.stride() for p in again.parameters()] == [p.stride() for p in net.parameters()]


def test_a_net_of_other_sizes_is_refused_by_name(tmp_path):
    save_model(SmallConvNet((2, 3, 4)), tmp_path/'net')
    with pytest.raises(ValueError, match=r'config\.widths\.1 is 3 there and 5 here'): load_model(tmp_path/'net', SmallConvNet((2, 5, 4)))
    with pytest.raises(ValueError, match=r'config\.n_classes is 10 there and 9 here'): load_model(tmp_path/'net', SmallConvNet((2, 3, 4), 9))
    with pytest.raises(ValueError, match="architecture is 'SmallConvNet' there and 'LeNet5' here"): load_model(tmp_path/'net', LeNet5())


@pytest.mark.parametrize('make', [lambda: SmallConvNet((2, 3, 4)), LeNet5])
def test_nets_of_float64(make):
    net, (x, _) = scrambled(make()).eval(), digits(5)
    scores = net(x)
    exact = net.double()(x.double())
    assert exact.dtype == torch.float64
    assert_close(exact.float(), scores, atol=1e-5, rtol=1e-4)


# The recipe.

@pytest.fixture
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def numbers(net): return torch.cat([t.detach().flatten() for t in net.state_dict().values()])


@on_each_device
@pytest.mark.parametrize('augment', [None, Distort()])
def test_the_recipe_is_what_torchs_own_loop_and_optimizer_make_of_it(augment, device, in_float64):
    (x, y), size = digits(300, device), RECIPE['batch_size']
    net, history = train_conv(x, y, 2, seed=3, lr=.2, widths=(3, 4, 5), augment=augment)
    torch.manual_seed(3)
    theirs = nn.Sequential(nn.Conv2d(1, 3, 5, 2, 2, bias=False), nn.BatchNorm2d(3), nn.ReLU(),
                           nn.Conv2d(3, 4, 3, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU(),
                           nn.Conv2d(4, 5, 3, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(5), nn.ReLU(),
                           nn.Flatten(), nn.Linear(20, 10)).to(device)
    opt = torch.optim.SGD(theirs.parameters(), .2, RECIPE['momentum'], weight_decay=RECIPE['weight_decay'], nesterov=True)
    batches, losses = -(-300//size), []
    rate = one_cycle(.2, 2*batches)
    for step in range(2*batches):
        if step%batches == 0: order = torch.randperm(300).to(device)
        rows = order[size*(step%batches):][:size]
        xb = augment(x[rows]) if augment else x[rows]
        opt.param_groups[0]['lr'] = rate(step)
        loss = F.cross_entropy(theirs(xb.view(-1, 1, 28, 28)), y[rows])
        loss.backward()
        opt.step()
        opt.zero_grad()
        losses.append(loss.item()*len(rows)/300)
    for ours, their in zip(net.state_dict().values(), theirs.state_dict().values(), strict=True): assert_close(ours, their, atol=1e-8, rtol=1e-6)
    assert history['train_loss'] == pytest.approx([sum(losses[:batches]), sum(losses[batches:])], abs=1e-8)
    assert not net.training and net.layers[0].weight.device.type == device


def test_what_the_recipe_does_where_nothing_is_said(monkeypatch):
    rates, seen = [], []
    def cycle(lr, n_steps):
        rates.append((lr, n_steps))
        return one_cycle(lr, n_steps)
    def no_fit(net, dl, valid_dl, opt, epochs, **options):
        seen.append((net.config, dl.batch_size, opt.param_groups[0]['lr'], epochs, valid_dl, options['augment'].amounts, options['hooks']))
    monkeypatch.setattr('mnist_foundations.convolution.one_cycle', cycle)
    monkeypatch.setattr('mnist_foundations.convolution.fit', no_fit)
    train_conv(*digits(300))
    lr, epochs, widths, size = (RECIPE[name] for name in ('lr', 'epochs', 'widths', 'batch_size'))
    assert rates == [(lr, epochs*-(-300//size))]
    assert seen == [(dict(widths=[*widths], n_classes=10), size, lr, epochs, None, Distort().amounts, [])]


def test_a_seed_is_a_net_and_nobody_s_is_seed_0():
    x, y = digits(100)
    a, b, c, d = (numbers(train_conv(x, y, 1, widths=(2, 3, 4), **seed)[0]) for seed in (dict(), dict(seed=0), dict(seed=0), dict(seed=1)))
    assert torch.equal(a, b) and torch.equal(b, c) and not torch.equal(c, d)


def test_one_hot_rows_are_labels_and_say_how_many_there_are():
    x, y = digits(100)
    run = dict(epochs=1, widths=(2, 3, 4))
    a, b = (train_conv(x, targets, **run)[0] for targets in (y, one_hot(y)))
    assert torch.equal(numbers(a), numbers(b))
    assert train_conv(x, y%3, **run)[0].config['n_classes'] == 10 and train_conv(x, one_hot(y%3, 3), **run)[0].config['n_classes'] == 3


def test_a_custom_distortion_sees_each_batch_once():
    x, y = digits(300)
    seen = []
    def darker(xb):
        seen.append(xb.shape)
        return xb/2
    net, _ = train_conv(x, y, 2, widths=(2, 3, 4), augment=darker)
    assert seen == [(len(rows), 784) for rows in torch.arange(300).split(RECIPE['batch_size'])]*2
    assert torch.equal(numbers(net), numbers(train_conv(x/2, y, 2, widths=(2, 3, 4), augment=None)[0]))


def test_twenty_images_are_learned_by_heart():
    x, y = digits(20)
    net, history = train_conv(x, y, 40, augment=None)
    assert (net(x).argmax(1) == y).all() and history['train_loss'][-1] < .1 < history['train_loss'][0]


def test_a_run_that_goes_on_from_its_checkpoint_is_the_run_that_was_begun(tmp_path):
    x, y = digits(100)
    run = dict(epochs=2, seed=1, widths=(2, 3, 4), checkpoint=tmp_path/'run')
    straight = numbers(train_conv(x, y, **run | dict(checkpoint=None))[0])
    assert torch.equal(numbers(train_conv(x, y, **run)[0]), straight)
    net, history = train_conv(x, y, **run)                          # all is done: read from the file
    assert torch.equal(numbers(net), straight) and len(history) == 2
    others = [dict(epochs=1), dict(epochs=3), dict(seed=2), dict(lr=.3), dict(widths=(2, 3, 5)), dict(augment=None), dict(augment=Distort(degrees=5))]
    for other in others:
        with pytest.raises(ValueError): train_conv(x, y, **run | other)
    with pytest.raises(ValueError): train_conv(x, (y + 1)%10, **run)


def test_a_run_that_was_cut_goes_on_from_its_last_epoch(tmp_path):
    class Cut(Distort):
        calls = 0
        def __call__(self, xb):
            Cut.calls += 1
            if Cut.calls == 3: raise KeyboardInterrupt               # in the third epoch, of one batch each
            return super().__call__(xb)
    x, y = digits(100)
    run = dict(epochs=3, widths=(2, 3, 4), augment=Cut(), checkpoint=tmp_path/'run')
    with pytest.raises(KeyboardInterrupt): train_conv(x, y, **run)
    net, history = train_conv(x, y, **run)
    assert Cut.calls == 4 and len(history) == 3
    assert torch.equal(numbers(net), numbers(train_conv(x, y, 3, widths=(2, 3, 4))[0]))


# How far back a place looks.

@pytest.mark.parametrize('windows, size, step', [
    ([], 1, 1), ([(5, 1)], 5, 1), ([(2, 2)], 2, 2), ([(3, 1), (3, 1)], 5, 1), ([(5, 2), (3, 1)], 9, 2), ([(3, 1), (5, 2)], 7, 2),
    ([(5, 1), (2, 2), (5, 1), (2, 2), (5, 1)], 32, 4),             # LeNet-5: 5, 6, 14, 16
    ([(5, 2), (3, 1), (2, 2), (3, 1), (2, 2)], 23, 8)])            # the small net: 5, 9, 11, 19
def test_receptive_fields_by_hand(windows, size, step):
    assert receptive_field(windows) == (size, step) == receptive_field(iter(windows))


@pytest.mark.parametrize('windows', [['c51'], ['c31', 'c31'], ['c52', 'c31'], ['c31', 'p22', 'c31'], ['c52', 'c31', 'p22', 'c31', 'p22'],
                                     ['p33', 'c21', 'c33', 'p22'], ['c51', 'p22', 'c51', 'p22', 'c51'], ['c13', 'c42']])
def test_receptive_fields_measured(windows):
    kinds = [(kind, int(kernel), int(stride)) for kind, kernel, stride in windows]
    layers = [nn.Conv2d(1, 1, kernel, stride, bias=False) if kind == 'c' else nn.MaxPool2d(kernel, stride) for kind, kernel, stride in kinds]
    for layer in layers:
        for p in layer.parameters(): nn.init.ones_(p)
    rows = torch.eye(60)[:, None, :, None].expand(60, 1, 60, 60)     # image i has ink in row i, and nowhere else
    with torch.no_grad(): looks = nn.Sequential(*layers)(rows)[:, 0, :, 0] > 0      # (row of the image, place)
    middle = looks.shape[1]//2
    before, seen = (looks[:, place].nonzero() for place in (middle - 1, middle))
    assert receptive_field([pair for _, *pair in kinds]) == (seen[-1] - seen[0] + 1, seen[0] - before[0])


# What is covered.

def around(row, column, size):
    "The pixels of a square that lie on the image."
    reach = (size - 1)//2
    return [(r, c) for r in range(row - reach, row + reach + 1) for c in range(column - reach, column + reach + 1) if 0 <= r < 28 and 0 <= c < 28]


def looks_at(row, column):
    "A net that adds up nothing but one pixel: its score for the second of three digits."
    def scores(x):
        pixel = x[:, 28*row + column]
        return torch.stack([0*pixel, pixel, 0*pixel], 1)
    return scores


@on_each_device
@pytest.mark.parametrize('size', [1, 3, 5])
@pytest.mark.parametrize('row, column', [(3, 20), (20, 3), (0, 0), (0, 27), (26, 1)])
def test_the_map_is_low_where_the_pixel_is_covered_that_the_net_looks_at(row, column, size, device):
    before = digits(1)[0][0].to(device)
    before[28*row + column] = 2
    seen, e = before.clone(), tensor(2.).exp()
    expected, other = torch.full((28, 28), e/(e + 2)), torch.full((28, 28), 1/(e + 2))
    for r, c in around(row, column, size): expected[r, c] = other[r, c] = 1/3
    for label, probability in ((1, expected), (0, other), (2, other)):
        found = occlusion(looks_at(row, column), seen, label, size)
        assert found.device.type == device and not found.requires_grad
        assert_close(found.cpu(), probability)
    assert torch.equal(seen, before)
    if size == 5: assert torch.equal(occlusion(looks_at(row, column), seen, 2), found)            # as it is where nothing is said


@pytest.mark.parametrize('size', [3, 5])
def test_what_the_net_gets_to_see(size):
    asked, pixels = [], digits(1)[0][0] + 1
    def model(x):
        asked.append(x.clone())
        return x[:, :10]
    occlusion(model, pixels, 3, size)
    images = torch.cat(asked)
    assert images.shape == (784, 784)
    for row, column in ((0, 0), (0, 27), (5, 11), (27, 2), (14, 14)):
        covered = pixels.view(28, 28).clone()
        for r, c in around(row, column, size): covered[r, c] = 0
        assert torch.equal(images[28*row + column], covered.flatten())


def test_the_map_is_made_where_the_image_is():
    assert occlusion(looks_at(3, 20), torch.zeros(784, device='meta'), 1).device.type == 'meta'


def test_a_net_in_training_is_asked_without_dropout_and_goes_on_training():
    torch.manual_seed(0)
    model, pixels = nn.Sequential(nn.Dropout(.5), nn.Linear(784, 10)), digits(1)[0][0]
    first = occlusion(model, pixels, 4)
    assert model.training and model[0].training and torch.equal(first, occlusion(model, pixels, 4))
    assert torch.equal(first, occlusion(model.eval(), pixels, 4)) and not model.training


# What else is refused.

def test_a_gradient_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r'grad has the shape \(1, 1, 2, 3\); expected \(1, 1, 3, 3\)'):
        conv2d_backward(some(1, 1, 2, 3), some(1, 1, 5, 5), some(1, 1, 3, 3))
    with pytest.raises(ValueError, match='padding is -1; expected a whole number, at least 0'):
        conv2d_backward(some(1, 1, 1, 1), some(1, 1, 5, 5), some(1, 1, 3, 3), padding=-1)


def test_filters_of_another_dtype_are_refused():
    with pytest.raises(TypeError, match='xb is torch.float32 and weights torch.float64; expected one dtype'):
        conv2d(some(1, 1, 5, 5), some(1, 1, 3, 3, dtype=torch.float64))


def test_images_without_channels_are_not_pooled():
    with pytest.raises(ValueError, match=r'xb has the shape \(5, 5\); expected \(n,c,h,w\)'): max_pool(some(5, 5))


@pytest.mark.parametrize('sizes, said', [(dict(widths=(4, 5)), 'expected three numbers'), (dict(widths=(4, 0, 5)), 'is 0'),
                                         (dict(n_classes=0), 'is 0')])
def test_sizes_of_no_net_are_refused(sizes, said):
    with pytest.raises(ValueError, match=said): SmallConvNet(**sizes)


def test_a_square_without_a_middle_is_refused():
    with pytest.raises(ValueError, match='size is 4; expected an odd number'): occlusion(SmallConvNet(), torch.rand(784), 3, 4)
    with pytest.raises(ValueError, match=r'expected \(n, 784\) or \(n, 1, 28, 28\)'): occlusion(SmallConvNet(), torch.rand(28, 28), 3)


# The long experiments.

def test_every_reported_change_was_trained_at_the_rate_that_another_seed_chose():
    rows = recorded_rows('convolution')
    for reported, searched, case in (('report', 'search', {0, 1, 2}), ('final', 'long', {0, 1, 2})):
        for change, report in rows[rows.purpose == reported].groupby('change'):
            if reported == 'final' and change != 'the recipe': continue             # LeNet-5 keeps the rate of its search
            search = rows[(rows.purpose == searched) & (rows.change == change)].sort_values('lr')
            best = search[search.valid_accuracy == search.valid_accuracy.max()].lr
            assert report.lr.isin(best).all() and report.lr.nunique() == 1 and set(report.seed) == case
            assert not set(search.seed) & case and search.lr.iloc[0] < report.lr.min() and search.lr.iloc[-1] > report.lr.max()


def test_the_recipe_is_the_one_that_was_recorded():
    final = recorded_rows('convolution').query("purpose == 'final' and change == 'the recipe'")
    assert set(final.lr) == {RECIPE['lr']} and set(final.epochs) == {RECIPE['epochs']} and set(final.seed) == {0, 1, 2}
    for run in final.itertuples(): assert run.test_accuracy == pytest.approx(1 - len(run.misread.split())/10_000)


@needs_all
@takes_minutes
def test_the_recipe_reads_more_than_994_of_1000_test_images():
    (x, y), (x_test, y_test) = (load_mnist(mnist_path(SHARED), split) for split in ('training', 'testing'))
    began = time.perf_counter()
    net, _ = train_conv(x, y)
    seconds = time.perf_counter() - began
    accuracy = validate_epoch(net, BatchLoader(x_test, y_test, 1000))
    print(f'\nthe recipe of chapter 11: {accuracy:.4f} in {seconds:.0f} seconds')
    assert accuracy > .994


@needs_all
@pytest.mark.parametrize('name', ['convolution', 'race'])
def test_short_rows_come_out_again(name):
    split, one_run = piles(), script(name).one_run
    for row in recorded_rows(name).query("purpose == 'short'").itertuples():
        if name == 'convolution': again, _ = one_run(split, 'short', row.change, row.lr, row.seed, row.epochs)
        else: again = one_run(split, 'short', row.net, row.epochs, row.lr, row.distortion, row.seed, row.dtype)
        check_again(again, row)


def test_each_net_races_with_settings_that_were_searched_for():
    rows, setting = recorded_rows('race'), ['net', 'epochs', 'lr', 'distortion']
    searched, raced = rows[rows.purpose == 'search'], rows[rows.purpose == 'race']
    for of, runs in raced.groupby(setting):
        found = searched[searched[setting].eq(list(of)).all(axis=1)]
        assert sorted(runs.seed) == [0, 1, 2, 3, 4] and set(found.seed) == {3, 4, 5} and set(runs.images) == {60_000}
        assert found.valid_accuracy.median() >= .98 and runs.test_accuracy.notna().all() and found.test_accuracy.isna().all()
