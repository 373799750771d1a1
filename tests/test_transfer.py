"Chapter 12: the three steps of as_mnist with numbers, layers and their rates, freezing, and fine-tuning."
import copy

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn, tensor
from torch.testing import assert_close

from long_experiments import SHARED, needs_all, recorded_rows, script
from mnist_foundations.convolution import LeNet5, SmallConvNet
from mnist_foundations.data import BatchLoader, load_mnist, mnist_path, split_valid
from mnist_foundations.deep import BatchNorm
from mnist_foundations.optimizers import SGD
from mnist_foundations.training import TwoLayerNet, fit, predict
from mnist_foundations.transfer import (Freeze, as_mnist, centred, cut_to_ink, fine_tune, fit_in_box, layers, parameter_groups,
                                        resize_weights, with_new_last_layer)

wrong_answers = ['two_sizes = [(20, 9), (8, 20)]', 'centre = (3.375, 2.25)',
                 'def box_weights(n_in, n_out): return torch.eye(n_out).repeat(1, n_in//n_out)*n_out/n_in',
                 'two_rates = (.1*.5**5, .1*.5**3)', 'free_numbers = 256*10 + 10']


# as_mnist.

def test_cut_to_the_first_and_last_row_and_column_with_ink():
    image = torch.zeros(9, 12)
    image[2, 5] = image[6, 3] = .01
    assert cut_to_ink(image).shape == (5, 3) and cut_to_ink(image)[0, 2] == cut_to_ink(image)[4, 0] == tensor(.01)
    assert cut_to_ink(torch.ones(3, 4)).shape == (3, 4)
    single = torch.zeros(5, 5, dtype=torch.float64)
    single[4, 0] = 1
    assert cut_to_ink(single).shape == (1, 1) and cut_to_ink(single).dtype == torch.float64


@pytest.mark.parametrize('image, error, said', [
    (torch.zeros(4, 4), ValueError, 'blank'), (torch.zeros(0, 4), ValueError, 'outside 0 to 1, or none'),
    (torch.full((4, 4), 1.1), ValueError, 'outside'), (torch.full((4, 4), -.1), ValueError, 'outside'),
    (torch.full((4, 4), torch.nan), ValueError, 'outside'), (torch.ones(4, 4, dtype=torch.uint8), TypeError, 'uint8'),
    (torch.ones(16), ValueError, 'image')])
def test_cut_refuses(image, error, said):
    with pytest.raises(error, match=said): as_mnist(image)


@pytest.mark.parametrize('n_in, n_out', [(47, 20), (400, 20), (20, 20), (8, 20), (1, 5), (7, 1), (3, 2), (13, 64)])
def test_resize_as_pillow_does(n_in, n_out):
    weights = resize_weights(n_in, n_out)
    assert weights.shape == (n_out, n_in) and weights.dtype == torch.float32
    assert_close(weights.sum(1), torch.ones(n_out))
    line = torch.rand(n_in, generator=torch.Generator().manual_seed(0))
    theirs = np.array(Image.fromarray(line[None].numpy()).resize((n_out, 1), Image.Resampling.LANCZOS))[0]
    assert_close(weights@line, torch.from_numpy(theirs), atol=2e-5, rtol=0)


def test_resize_of_nothing_is_refused():
    with pytest.raises(ValueError, match='n_in is 0'): resize_weights(0, 3)
    with pytest.raises(ValueError, match='n_out is 0'): resize_weights(3, 0)
    with pytest.raises(ValueError, match='size is 0'): fit_in_box(torch.ones(3, 3), 0)


@pytest.mark.parametrize('shape, size, expected', [
    ((47, 30), 20, (20, 13)), ((30, 47), 20, (13, 20)), ((20, 1), 20, (20, 1)), ((400, 3), 20, (20, 1)), ((8, 8), 20, (20, 20)),
    ((40, 5), 20, (20, 2)), ((40, 7), 20, (20, 4)), ((10, 4), 5, (5, 2))])        # 2.5 becomes 2, 3.5 becomes 4
def test_the_longer_side_has_the_size(shape, size, expected):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    boxed = fit_in_box(image, size)
    assert boxed.shape == expected and boxed.min() >= 0 and boxed.max() <= 1
    assert_close(fit_in_box(image.T.contiguous().T, size), boxed)          # whatever lies in memory


def test_rows_and_columns_are_not_mixed_up():
    image = torch.zeros(40, 20)
    image[:20] = 1
    boxed = fit_in_box(image)
    assert boxed.shape == (20, 10) and boxed[:8].min() > .95 and boxed[12:].max() < .05


def test_centred_on_pixel_14():
    image = torch.zeros(5, 3)
    image[1, 2] = 1
    assert centred(image)[14, 14] == 1 and centred(image).sum() == 1
    image[3, 2] = .5                                      # the centre at row 1.67, rounded to 2 down
    assert centred(image)[13, 14] == 1 and centred(image)[15, 14] == .5


def test_centred_stays_within_the_frame():
    tall = torch.full((28, 2), .01)
    tall[27] = 1
    frame = centred(tall)
    assert frame.shape == (28, 28) and frame.sum() == tall.sum() and (frame[27] > .5).sum() == 2
    with pytest.raises(ValueError, match='29 by 3'): centred(torch.ones(29, 3))


def test_mnist_comes_back_pixel_by_pixel():
    x, _ = load_mnist(mnist_path(), 'testing')
    images = x[::7].view(-1, 28, 28)
    again = torch.stack([as_mnist(image) for image in images])
    assert ((again == images).flatten(1).all(1)).float().mean() > .99


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16])
def test_dtype_is_kept_and_where_the_ink_stood_does_not_matter(dtype):
    sheet = torch.zeros(120, 90, dtype=dtype)
    sheet[70:110, 60:75] = .8
    other = torch.zeros(200, 100, dtype=dtype)
    other[3:43, 2:17] = .8
    assert as_mnist(sheet).dtype == dtype and (as_mnist(sheet) == as_mnist(other)).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU')
def test_on_a_gpu():
    image = torch.rand(40, 60)
    assert_close(as_mnist(image.cuda()).cpu(), as_mnist(image), atol=1e-5, rtol=0)


# Layers.

def test_layers_of_the_nets_of_the_series():
    names = [[type(module).__name__ for module in group] for group in layers(SmallConvNet())]
    assert names == [['Conv2d', 'BatchNorm2d']]*3 + [['Linear']]
    assert [len(group) for group in layers(LeNet5())] == [1]*5
    ours = nn.Sequential(nn.Linear(4, 3), BatchNorm(3), nn.ReLU(), nn.Linear(3, 2))
    assert [len(group) for group in layers(ours)] == [2, 1]
    assert len(layers(TwoLayerNet(5))) == 1                # its parameters are its own
    with pytest.raises(ValueError, match='ReLU without parameters'): layers(nn.ReLU())


def test_rates_fall_towards_the_first_layer():
    groups = parameter_groups(SmallConvNet(), .08, .5)
    assert [group['lr'] for group in groups] == [.01, .02, .04, .08]
    assert [len(group['params']) for group in groups] == [3, 3, 3, 2]
    net = SmallConvNet()
    assert {id(p) for group in parameter_groups(net, .1) for p in group['params']} == {id(p) for p in net.parameters()}
    assert {group['lr'] for group in parameter_groups(net, .1)} == {.1}
    torch.optim.SGD(groups, .1)
    assert [len(group['params']) for group in parameter_groups(TwoLayerNet(5), .1)] == [4]
    with pytest.raises(ValueError, match='one layer and factor is 0.5'): parameter_groups(TwoLayerNet(5), .1, .5)
    without = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, affine=False), nn.Linear(3, 2))
    assert [len(group) for group in layers(without)] == [2, 1]
    for wrong in (dict(lr=0), dict(lr=.1, factor=0), dict(lr=.1, factor=-1)):
        with pytest.raises(ValueError, match='lr|factor'): parameter_groups(net, **wrong)


def some_images(n=40):
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 784, generator=g), torch.arange(n) % 10


@pytest.mark.parametrize('n_free, learned', [(1, 1), (2, 2), (3, 3)])
def test_frozen_layers_and_their_running_means_stay(n_free, learned):
    x, y = some_images()
    net = SmallConvNet((4, 5, 6))
    before = copy.deepcopy(net.state_dict())
    opt = SGD(net.parameters(), .1, momentum=.9, weight_decay=.1)
    fit(net, BatchLoader(x, y, 20), None, opt, 2, hooks=Freeze(n_free))
    groups, after = layers(net), net.state_dict()
    changed = []
    for group in groups:
        tensors = [t for module in group for t in (*module.parameters(recurse=False), *module.buffers(recurse=False))]
        names = [name for name, t in after.items() if any(t.data_ptr() == own.data_ptr() for own in tensors)]
        changed.append([not torch.equal(before[name], after[name]) for name in names])
    assert [all(each) for each in changed] == [False]*(4 - learned) + [True]*learned
    assert not any(any(each) for each in changed[:4 - learned])
    assert all(p.requires_grad for p in net.parameters())


def test_without_freezing_all_learn_again():
    x, y = some_images()
    net = SmallConvNet((4, 5, 6))
    fit(net, BatchLoader(x, y, 20), None, SGD(net.parameters(), .1), 1, hooks=Freeze())
    before = net.layers[0].weight.clone()
    fit(net, BatchLoader(x, y, 20), None, SGD(net.parameters(), .1), 1)
    assert not torch.equal(before, net.layers[0].weight)


def test_what_was_frozen_before_stays_so():
    x, y = some_images()
    net = SmallConvNet((4, 5, 6))
    net.layers[0].requires_grad_(False)
    fit(net, BatchLoader(x, y, 20), None, SGD(net.parameters(), .1), 1, hooks=Freeze())
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ['layers.0.weight']


def test_freeze_refuses():
    x, y = some_images()
    with pytest.raises(ValueError, match='n_free is 0'): Freeze(0)
    with pytest.raises(ValueError, match='n_free is 0'): fine_tune(SmallConvNet((2, 2, 2)), x, y, .1, n_free=0)
    for net, n_free, said in ((SmallConvNet((2, 2, 2)), 4, 'has 4 layers'), (TwoLayerNet(5), 1, 'has 1 layers')):
        with pytest.raises(ValueError, match=said):
            fit(net, BatchLoader(x, y, 20), None, SGD(net.parameters(), .1), 1, hooks=Freeze(n_free))
        assert all(p.requires_grad for p in net.parameters())


def test_a_new_last_layer():
    net = SmallConvNet((4, 5, 6))
    new = with_new_last_layer(net, 3)
    x, _ = some_images(5)
    assert new.eval()(x).shape == (5, 3) and net.eval()(x).shape == (5, 10) and new.config['n_classes'] == 3
    assert torch.equal(new.layers[0].weight, net.layers[0].weight) and new.layers[0].weight is not net.layers[0].weight
    assert net.config['n_classes'] == 10
    assert with_new_last_layer(nn.Sequential(nn.Linear(784, 4)).double(), 2)[0].weight.dtype == torch.float64
    with pytest.raises(ValueError, match='Conv2d'): with_new_last_layer(nn.Sequential(nn.Conv2d(1, 1, 3)), 2)
    with pytest.raises(ValueError, match='n_classes is 0'): with_new_last_layer(net, 0)


def test_fine_tune_takes_about_so_many_steps_at_those_rates():
    x, y = some_images(130)
    for n, steps, epochs in ((130, 30, 10), (40, 30, 30), (130, 1, 1)):
        net = SmallConvNet((2, 3, 4))
        history = fine_tune(net, x[:n], y[:n], .04, .5, steps=steps, augment=None)
        assert len(history) == epochs
    assert max(history['lr']) <= .04


def test_fine_tune_repeats_and_its_arguments_count():
    x, y = some_images()
    start = SmallConvNet((4, 5, 6))
    def tuned(**how):
        net = copy.deepcopy(start)
        fine_tune(net, x, y, **(dict(lr=.05, steps=5) | how))
        return net.state_dict()
    first = tuned()
    assert all(torch.equal(a, b) for a, b in zip(first.values(), tuned().values()))
    for how in (dict(seed=1), dict(lr=.02), dict(factor=.5), dict(augment=None), dict(n_free=1), dict(steps=9)):
        assert any(not torch.equal(a, b) for a, b in zip(first.values(), tuned(**how).values())), how
    frozen = tuned(n_free=1)
    assert all(torch.equal(frozen[name], t) for name, t in start.state_dict().items() if not name.startswith('layers.12.'))


# The recorded experiment.

def test_every_report_took_the_best_rate_of_its_choices():
    rows = recorded_rows('transfer')
    chosen, report = (rows[rows.purpose == purpose] for purpose in ('choose', 'report'))
    assert set(report.labels) == {1, 5, 10, 50} and set(chosen.seed).isdisjoint(report.seed) and set(chosen.seed) == {5, 6, 7}
    for (case, method, labels), group in report.groupby(['case', 'method', 'labels']):
        assert set(group.seed) == {0, 1, 2, 3, 4} and group.lr.nunique() == 1
        tried = chosen[(chosen.case == case) & (chosen.method == method) & (chosen.labels == labels)].groupby('lr').accuracy.mean()
        assert tried[group.lr.iloc[0]] == tried.max()
        assert tried.index.min() < group.lr.iloc[0] < tried.index.max() or len(tried) > 6


@needs_all
def test_a_short_row_again():
    benchmark = script('transfer')
    train = split_valid(*load_mnist(mnist_path(SHARED), 'training'))[:2]
    torch.set_num_threads(1)
    few = train[0][:20_000], train[1][:20_000]
    benchmark.NETS = benchmark.NETS/'short'
    pool, rest = benchmark.other_hands()[1]
    row = benchmark.one_run('other hands', pool, rest, 'last layer', 10, .02, 0, few, 'short')
    recorded = recorded_rows('transfer').query('purpose == "report" and case == "other hands" and method == "last layer" and labels == 10')
    assert row['accuracy'] == pytest.approx(recorded.accuracy.mean(), abs=.03) and row['images'] == 798


def test_other_hands_fall_and_rise():
    "What the chapter tells, for a net that travels with the package: stretched digits are misread, prepared ones are read."
    from mnist_foundations.reading import load_reader
    digits = load_digits()
    small, y = torch.from_numpy(digits.images).float()/16, torch.from_numpy(digits.target)
    stretched = nn.functional.interpolate(small[:, None], size=(28, 28), mode='bilinear').view(-1, 784)
    prepared = torch.stack([as_mnist(image) for image in small]).view(-1, 784)
    fallen, risen = ((predict(load_reader(), x).argmax(1) == y).float().mean() for x in (stretched, prepared))
    assert fallen < risen - .05 and risen > .95
