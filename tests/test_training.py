"Chapter 05: optimizers and distortion against PyTorch, runs that are cut off, spoilt files, bad input, the recipe."
import errno, json, os, signal, subprocess, sys, threading, time
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from mnist_foundations.data import BatchLoader, load_mnist, one_hot
from mnist_foundations.net import batch_accuracy, softmax_cross_entropy, validate_epoch
from mnist_foundations.show import show_spread
from mnist_foundations.training import (
    SGD, Adam, Distort, History, TwoLayerNet, dropout, fit, load_model, lr_find, one_cycle, save_model, train_well)

wrong_answers = [   # what a reader might answer, for each exercise of the chapter in order
    'my_factors = [19, 99]', 'def my_decay(params, lr, decay):\n    for p in params: p.data.mul_(1 - decay)',
    'my_sums = [.8, .5, .25]', 'my_degrees = 20']
devices = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU'))]
on_each_device = pytest.mark.parametrize('device', devices)
full = Path(__file__).parents[2]/'shared'/'data'/'mnist_png.tgz'


def digits(n=200, device='cpu'):
    "n random images with one-hot targets."
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 784, generator=g).to(device), one_hot(torch.randint(10, (n,), generator=g)).to(device)


def setting(device='cpu', kind=partial(SGD, lr=.05, momentum=.9), seed=0, **net):
    "A small net, its loader and its optimizer."
    torch.manual_seed(seed)
    model = TwoLayerNet(hidden=8, device=device, **net)
    return model, BatchLoader(*digits(device=device), 32, shuffle=True), kind(model.parameters())


def values(model): return [p.detach().clone() for p in model.parameters()]

def equal(a, b): return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def changed(path, **change):
    "Rewrite what a file says of itself."
    raw = path.read_bytes()
    n = int.from_bytes(raw[:8], 'little')
    header = json.loads(raw[8:8 + n])
    header['__metadata__'] |= change
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, 'little') + text + raw[8 + n:])


# Optimizers: any options, the same steps as PyTorch's.

share, decay = st.floats(0, .99), st.sampled_from([0., 1e-4, .1])

def steps_apart(ours, theirs, options, dtype):
    torch.manual_seed(0)
    pairs = [(p.requires_grad_(), p.detach().clone().requires_grad_()) for p in (torch.randn(3, 4, dtype=dtype), torch.randn(5, dtype=dtype))]
    a, b = ours([p for p, _ in pairs], **options), theirs([q for _, q in pairs], **options)
    for _ in range(100):
        for p, q in pairs: p.grad = torch.randn_like(p); q.grad = p.grad.clone()
        a.step(); b.step()
    return max((p - q).abs().max().item() for p, q in pairs)


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-4, .1), share, st.booleans(), decay)
def test_sgd_is_torchs(lr, momentum, nesterov, weight_decay):
    options = dict(lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, weight_decay=weight_decay)
    assert steps_apart(SGD, torch.optim.SGD, options, torch.float64) < 1e-10


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-4, .1), share, st.floats(.5, .9999), decay)
def test_adam_is_torchs(lr, beta1, beta2, weight_decay):
    options = dict(lr=lr, betas=(beta1, beta2), weight_decay=weight_decay)
    assert steps_apart(Adam, torch.optim.Adam, options, torch.float64) < 1e-9


def test_optimizers_take_groups_schedulers_and_saved_states():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    opt = SGD([dict(params=[a]), dict(params=[b], lr=1.)], .1, momentum=.5)
    a.grad = b.grad = torch.ones(2)
    opt.step()
    assert a.tolist() == pytest.approx([.9, .9]) and b.tolist() == [0, 0]
    again = SGD([dict(params=[a]), dict(params=[b], lr=1.)], .1)
    again.load_state_dict(opt.state_dict())
    assert equal([again.state[a]['velocity']], [opt.state[a]['velocity']])
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 1, .1)
    opt.step(); scheduler.step()
    assert opt.param_groups[0]['lr'] == pytest.approx(.01)


def test_a_parameter_without_a_gradient_stays():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    a.grad = torch.ones(2)
    Adam([a, b], .1).step()
    assert b.tolist() == [1, 1] and a.tolist() != [1, 1]


@pytest.mark.parametrize('make, said', [
    (lambda p: SGD([], .1), 'empty parameter list'), (lambda p: Adam([]), 'empty parameter list'),
    (lambda p: SGD([p], 0), 'lr is 0'), (lambda p: SGD([p], float('nan')), 'lr is nan'), (lambda p: Adam([p], -1), 'lr is -1'),
    (lambda p: SGD([p], .1, 1.), 'momentum is 1.0'), (lambda p: SGD([p], .1, -.1), 'momentum is -0.1'),
    (lambda p: SGD([p], .1, weight_decay=-1), 'weight_decay is -1'), (lambda p: Adam([p], betas=(.9, 1.)), 'betas is 1.0'),
    (lambda p: Adam([p], eps=-1), 'eps is -1'), (lambda p: Adam([p], betas=(.9,)), 'unpack'), (lambda p: Adam([p], weight_decay=float('nan')), 'weight_decay is nan'),
    (lambda p: SGD([p], .1, nesterov=True), 'nesterov needs a momentum')])
def test_optimizers_refuse(make, said):
    with pytest.raises(ValueError, match=said): make(torch.ones(1, requires_grad=True))


# Schedule, loss, dropout.

@pytest.mark.parametrize('n_steps', [0, -1, float('nan')])
def test_a_schedule_of_no_steps(n_steps):
    with pytest.raises(ValueError, match='n_steps is .* expected at least 1'): one_cycle(.1, n_steps)


@pytest.mark.parametrize('option', [dict(warmup=1), dict(warmup=-.1), dict(low=-1), dict(final=-1)])
def test_one_cycle_refuses(option):
    with pytest.raises(ValueError, match=f'{[*option][0]} is'): one_cycle(.1, 10, **option)


@given(st.floats(1e-6, 1e3), st.integers(1, 500), st.floats(0, .99))
def test_one_cycle_stays_between_0_and_its_highest(lr, n_steps, warmup):
    rates = [one_cycle(lr, n_steps, warmup)(i) for i in range(n_steps + 1)]
    assert all(0 < r <= lr*(1 + 1e-9) for r in rates) and rates[-1] == pytest.approx(lr*1e-5, rel=1e-3)


@pytest.mark.parametrize('p', [-.1, 1, 1.5, float('nan')])
def test_a_probability_outside_0_to_1(p):
    for tried in (lambda: dropout(torch.ones(3), p), lambda: TwoLayerNet(dropout=p)):
        with pytest.raises(ValueError, match='expected from 0 to below 1'): tried()


@on_each_device
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_dropout_keeps_dtype_and_device_and_its_gradient_is_its_mask(device, dtype):
    x = torch.ones(1000, dtype=dtype, device=device, requires_grad=True)
    out = dropout(x, .5)
    out.sum().backward()
    assert (out.dtype, out.device) == (dtype, x.device) and torch.equal(out, x.grad)


# Distortion.

@on_each_device
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_distortion_is_the_same_on_every_device_and_in_both_dtypes(device, dtype):
    x, _ = digits(20)
    want = Distort(generator=torch.Generator().manual_seed(1))(x)
    got = Distort(generator=torch.Generator().manual_seed(1))(x.to(device, dtype))
    assert (got.dtype, got.device.type, got.shape) == (dtype, device, x.shape)
    torch.testing.assert_close(got.cpu().float(), want, atol=1e-3, rtol=0)


def test_distortion_takes_one_image_none_a_slice_and_leaves_its_input():
    x, _ = digits(10)
    before = x.clone()
    assert Distort()(x[:1]).shape == (1, 784) and Distort()(x[:0]).shape == (0, 784) and Distort()(x[::3]).shape == (4, 784)
    assert torch.equal(x, before)


@on_each_device
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_does_not_make_the_places_coarse(device, dtype):
    x, _ = digits(20, device=device)
    distort = Distort(0, 0, 0, 0, 0)
    assert distort(x.to(dtype)).dtype == dtype
    with torch.autocast(device, torch.bfloat16): out = distort(x)
    torch.testing.assert_close(out, x, atol=1e-4, rtol=0)
    torch.testing.assert_close(distort(x.to(dtype)).float(), x.to(dtype).float(), atol=1e-2, rtol=0)


def test_the_change_of_size_is_the_change_of_size():
    square = torch.zeros(28, 28); square[9:19, 9:19] = 1
    out = Distort(0, .5, 0, 0, 0)(square.view(1, 784).expand(300, 784)).view(300, 28, 28)
    widths = out[:, 14].sum(1)
    assert 4.9 < widths.min() < 5.5 and 14.5 < widths.max() < 15.1


def test_each_image_is_distorted_in_its_own_way():
    x = digits(1)[0].expand(5, 784)
    out = Distort()(x)
    assert all(not torch.equal(out[i], out[j]) for i in range(5) for j in range(i))


@pytest.mark.parametrize('degrees', [30, 90])
def test_a_turn_is_a_turn(degrees):
    "A bar that is upright, turned by at most so much: its principal axis says by how much it was."
    bar = torch.zeros(28, 28); bar[4:24, 13:15] = 1
    out = Distort(degrees, 0, 0, 0, 0)(bar.view(1, 784).expand(200, 784)).view(200, 28, 28)
    y, x = torch.meshgrid(torch.arange(28.) - 13.5, torch.arange(28.) - 13.5, indexing='ij')
    xx, yy, xy = [(out*w).sum((1, 2)) for w in (x*x, y*y, x*y)]
    turned = (.5*torch.atan2(2*xy, yy - xx)).rad2deg().abs()
    assert .8*degrees < turned.max() < degrees + 3


@pytest.mark.parametrize('name', ['degrees', 'scale', 'shear', 'shift', 'elastic', 'smooth'])
@pytest.mark.parametrize('value', [-1, float('nan'), float('inf')])
def test_amounts_that_make_no_sense(name, value):
    with pytest.raises(ValueError, match=f'{name} is'): Distort(**{name: value})


# fit: what it refuses.

@pytest.mark.parametrize('change, said', [
    (dict(epochs=0), 'epochs is 0'), (dict(epochs=-1), 'epochs is -1'), (dict(train_dl=[]), 'train_dl has no batches'),
    (dict(epochs=2.5), 'epochs is 2.5'), (dict(epochs='2'), "epochs is '2'"), (dict(valid_dl=[]), 'valid_dl has no batches'),
    (dict(metrics=batch_accuracy), 'metrics is'), (dict(metrics=(batch_accuracy,)*2), 'different names'),
    (dict(metrics=(lambda s, t: 0., lambda s, t: 1.)), 'different names'), (dict(patience=0), 'patience is 0'),
    (dict(patience=2, valid_dl=None), 'patience is 2')])
def test_fit_refuses(change, said):
    model, dl, opt = setting()
    with pytest.raises(ValueError, match=said):
        fit(**dict(model=model, train_dl=dl, valid_dl=dl, opt=opt, epochs=1) | change)


@pytest.mark.parametrize('name', ['train_dl', 'valid_dl'])
def test_loaders_that_can_be_used_only_once(name):
    model, dl, opt = setting()
    with pytest.raises(TypeError, match=f'{name} is a .* expected a loader with a length'):
        fit(**dict(model=model, train_dl=dl, valid_dl=dl, opt=opt, epochs=1) | {name: iter([*dl])})


def test_an_optimizer_of_another_model():
    model, dl, _ = setting()
    other, before = TwoLayerNet(hidden=8), values(model)
    untouched = values(other)
    with pytest.raises(ValueError, match='no parameter of opt got a gradient'):
        fit(model, dl, None, SGD(other.parameters(), .1), 1)
    assert equal(values(model), before) and equal(values(other), untouched)


def test_groups_with_their_own_rates_and_a_schedule():
    model, dl, _ = setting()
    a, b, c, d = model.parameters()
    opt = SGD([dict(params=[a, b]), dict(params=[c, d], lr=.01)], .1)
    fit(model, dl, None, opt, 1)
    with pytest.raises(ValueError, match='several learning rates'): fit(model, dl, None, opt, 1, schedule=lambda i: .1)


def test_a_model_in_another_dtype_or_on_another_device():
    model, dl, opt = setting()
    wide = [(x.double(), t) for x, t in dl]
    with pytest.raises(ValueError, match='train_dl has torch.float64 on cpu and a parameter is torch.float32 on cpu'):
        fit(model, wide, None, opt, 1)
    elsewhere = [(x.to('meta'), t) for x, t in dl]
    with pytest.raises(ValueError, match='train_dl has torch.float32 on meta and a parameter is torch.float32 on cpu'):
        fit(model, elsewhere, None, opt, 1)
    before = values(model)
    with pytest.raises(ValueError, match='valid_dl has torch.float64'): fit(model, dl, wide, opt, 1)
    assert equal(values(model), before)


@on_each_device
def test_after_a_loss_that_is_no_number_everything_is_as_before_and_can_go_on(device):
    model, dl, opt = setting(device)
    fit(model, dl, None, opt, 1)
    before, velocity = values(model), [opt.state[p]['velocity'].clone() for p in model.parameters()]
    def spoilt(scores, t): return softmax_cross_entropy(scores, t)*(float('inf') if opt.param_groups[0]['lr'] > 4 else 1)
    with pytest.raises(ValueError, match='stopped being finite in step 5, with a learning rate of 4 before it'):
        fit(model, dl, None, opt, 3, spoilt, schedule=lambda step: step)
    assert equal(values(model), before) and equal([opt.state[p]['velocity'] for p in model.parameters()], velocity)
    assert opt.param_groups[0]['lr'] == .05 and all(p.grad is None for p in model.parameters())
    fit(model, dl, None, opt, 1)


def test_a_validation_loss_that_is_no_number_and_a_metric_that_is_none():
    model, dl, opt = setting()
    before = values(model)
    def nan_unless_training(scores, t): return softmax_cross_entropy(scores, t)*(1 if scores.requires_grad else float('nan'))
    with pytest.raises(ValueError, match='valid_loss is nan'): fit(model, dl, dl, opt, 1, nan_unless_training)
    assert equal(values(model), before)
    marks, seen = iter([float('nan'), .5, .9]), []
    def mark(scores, targets):
        seen.append(values(model))
        return next(marks)
    fit(model, dl, dl, opt, 3, metrics=(mark,), patience=2)
    assert equal(values(model), seen[2])


def test_an_error_in_the_data_leaves_the_parameters():
    model, dl, opt = setting()
    before, batches = values(model), [*dl]
    with pytest.raises(ValueError, match='expected one-hot rows'): fit(model, [*batches, (batches[0][0], batches[0][1][:5])], None, opt, 1)
    assert equal(values(model), before)


# fit: what it gives.

@on_each_device
def test_any_callable_any_optimizer_any_loader(device):
    from fastai.basics import DataLoader
    torch.manual_seed(0)
    w = torch.zeros(784, 10, device=device, requires_grad=True)
    x, t = digits(device=device)
    for loader in (DataLoader([*zip(x, t)], 32), torch.utils.data.DataLoader([*zip(x, t)], 32), [(x, t)]):
        history = fit(lambda xb: xb@w, loader, loader, torch.optim.Adam([w], 1e-3), 2, metrics=())
        assert len(history) == 2 and history['valid_loss'][1] < history['valid_loss'][0]


def test_metrics_by_name_and_the_mean_loss_of_uneven_batches():
    w = torch.zeros(784, 10, requires_grad=True)
    x, t = digits(50)
    def nines(scores, targets): return (scores.argmax(1) == 9).float().mean()
    history = fit(lambda xb: xb@w, BatchLoader(x, t, 32), [(x, t)], SGD([w], 1e-9), 1, metrics=(nines,))
    assert history['nines'] == [0.] and history['train_loss'][0] == pytest.approx(torch.tensor(10.).log().item(), abs=1e-5)


def test_patience_takes_the_best_parameters():
    model, dl, opt = setting()
    marks = iter([.1, .5, .3, .2, .9])
    seen = []
    def mark(scores, targets):
        seen.append(values(model))
        return next(marks)
    history = fit(model, dl, dl, opt, 5, metrics=(mark,), patience=2)
    assert history['mark'] == [.1, .5, .3, .2] and equal(values(model), seen[1])


def test_history_draws_itself_whatever_it_holds():
    row = dict(epoch=1, train_loss=1., lr=.1, seconds=1.)
    for rows in ([], [row], [row, row | dict(epoch=2)], [row | dict(valid_loss=1., batch_accuracy=.5)]):
        assert History(rows)._repr_mimebundle_()[0]['image/png'][:4] == b'\x89PNG'
        assert repr(History(rows))
    assert show_spread({'one': [.5]}, 'accuracy')._repr_mimebundle_()[0]['image/png']


@on_each_device
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_under_autocast(device, dtype):
    if device == 'cpu' and dtype == torch.float16: pytest.skip('float16 autocast is for CUDA')
    model, dl, opt = setting(device, dropout=.1)
    with torch.autocast(device, dtype): history = fit(model, dl, dl, opt, 5, augment=Distort())
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert history['train_loss'][-1] < history['train_loss'][0] - .02
    with torch.autocast(device, dtype): anew = validate_epoch(model, dl, softmax_cross_entropy)
    assert history['valid_loss'][-1] == pytest.approx(anew, rel=1e-3)      # not measured with weights of before


# Cut off, and gone on from a checkpoint.

optimizers = {'momentum': partial(SGD, lr=.05, momentum=.9), 'plain': partial(SGD, lr=.05), 'Adam': Adam,
              "torch's Adam": partial(torch.optim.Adam, lr=1e-3), "torch's SGD": partial(torch.optim.SGD, lr=.05, momentum=.9)}

@on_each_device
@pytest.mark.parametrize('kind', optimizers)
@pytest.mark.parametrize('own', [False, True], ids=['shared random numbers', 'a generator'])
def test_goes_on_to_the_same_end(device, kind, own, tmp_path):
    def run(epochs, checkpoint, spoil=False):
        model, dl, opt = setting(device, optimizers[kind], dropout=.3)
        g = torch.Generator().manual_seed(0) if own else None
        dl.generator = g
        if spoil:                                            # nothing of this may count
            torch.rand(7, generator=g); torch.rand(7, device=device)
            with torch.no_grad(): model.w1.add_(1)
        rate = one_cycle(.05, 28)
        cut = (m for m in [0]*epochs)
        def mark(scores, t):
            try: next(cut)
            except StopIteration: raise RuntimeError('cut off') from None
            return batch_accuracy(scores, t)
        try:
            history = fit(model, dl, dl, opt, 4, schedule=rate, augment=Distort(generator=g), checkpoint=checkpoint,
                          generator=g, metrics=(mark,))
        except RuntimeError as e: return str(e)
        return values(model), [{k: v for k, v in row.items() if k != 'seconds'} for row in history.rows]
    straight = run(4, None)
    assert run(2, tmp_path/'run') == 'cut off'
    went_on = run(4, tmp_path/'run', spoil=True)
    assert equal(straight[0], went_on[0]) and straight[1] == went_on[1]
    again = run(4, tmp_path/'run', spoil=True)              # nothing is left to do
    assert equal(straight[0], again[0]) and straight[1] == again[1]


class Normed(nn.Module):
    "A net with buffers."
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(784, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
    def forward(self, xb): return self.layers(xb)


def test_buffers_are_kept_with_the_parameters(tmp_path):
    def run(cut, checkpoint=None):
        torch.manual_seed(0)
        model, dl = Normed(), BatchLoader(*digits(), 32, shuffle=True)
        def mark(scores, t):
            mark.left -= 1
            if mark.left < 0: raise RuntimeError
            return 1 - .1*mark.left if checkpoint else 0.
        mark.left = cut
        try: fit(model, dl, dl, SGD(model.parameters(), .05), 4, metrics=(mark,), checkpoint=checkpoint)
        except RuntimeError: pass
        return [*model.state_dict().values()]
    assert equal(run(4), (run(2, tmp_path/'run'), run(4, tmp_path/'run'))[1])
    after_two = run(2)                                      # an error in the third epoch: back to the end of the second
    assert after_two[6].item() == 14                        # num_batches_tracked


SCRIPT = '''
import sys, time, torch
from mnist_foundations.data import BatchLoader, one_hot
from mnist_foundations.training import SGD, Distort, TwoLayerNet, fit
def slow(xb): time.sleep(float(sys.argv[2])); return distort(xb)
torch.manual_seed(0)
distort, model = Distort(), TwoLayerNet(hidden=8)
dl = BatchLoader(torch.rand(64, 784), one_hot(torch.arange(64)%10), 16, shuffle=True)
print('ready', flush=True)
history = fit(model, dl, dl, SGD(model.parameters(), .05, momentum=.9), int(sys.argv[3]), augment=slow, checkpoint=sys.argv[1])
print('sum', sum(p.double().sum().item() for p in model.parameters()), history['train_loss'], flush=True)
'''

def script(path, pause, epochs): return [sys.executable, '-c', SCRIPT, str(path), str(pause), str(epochs)]

def started_and_signalled(path, number):
    "The script, sent a signal as soon as its second checkpoint is there; its output."
    run = subprocess.Popen(script(path, .2, 50), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if path.exists() and b'"epoch": 2' in path.read_bytes().replace(b'\\"', b'"'): break
        time.sleep(.05)
    while run.poll() is None:      # again where it was lost, as one that comes in a destructor is
        run.send_signal(number)
        with suppress(subprocess.TimeoutExpired): run.wait(10)
    return run.communicate(), run.returncode


def test_a_killed_process_goes_on_to_the_same_end(tmp_path):
    _, code = started_and_signalled(tmp_path/'run', signal.SIGKILL)
    assert code == -signal.SIGKILL
    ends = [subprocess.run(script(tmp_path/name, 0, 50), capture_output=True, text=True, check=True).stdout.splitlines()[-1]
            for name in ('run', 'never stopped')]
    assert ends[0].startswith('sum') and ends[0] == ends[1]
    assert sorted(f.name for f in tmp_path.iterdir() if not f.name.startswith('.')) == ['never stopped', 'run']


def test_the_stop_button(tmp_path):
    (out, err), code = started_and_signalled(tmp_path/'run', signal.SIGINT)
    assert code == 0, err
    assert 'Stopped: interrupted in epoch' in out and 'the best' in out and 'sum' in out


def test_an_interrupt_keeps_the_best_and_no_failure_does():
    model, dl, opt = setting()
    marks, seen = iter([.9, .1]), []
    def mark(scores, targets):
        seen.append(values(model))
        try: return next(marks)
        except StopIteration: raise KeyboardInterrupt from None
    history = fit(model, dl, dl, opt, 5, metrics=(mark,))
    assert len(history) == 2 and equal(values(model), seen[0])


def test_a_checkpoint_of_another_run(tmp_path):
    model, dl, opt = setting()
    fit(model, dl, None, opt, 1, checkpoint=tmp_path/'run')
    other = TwoLayerNet(hidden=9)
    double = setting()[0].double()
    for tried, said in (
            ((other, dl, SGD(other.parameters(), .05, .9)), 'tensors'), ((model, dl, Adam(model.parameters())), 'optimizer'),
            ((double, [(x.double(), t) for x, t in dl], SGD(double.parameters(), .05, .9)), 'tensors'),
            ((model, dl, torch.optim.SGD(model.parameters(), .05, .9)), 'optimizer'),
            ((model, BatchLoader(*digits(), 50), opt), 'batches'), ((model, dl, SGD(model.parameters(), .05, .8)), 'options'),
            ((model, dl, SGD(model.parameters(), 5., .9)), 'rates')):
        before = values(tried[0])
        with pytest.raises(ValueError, match=f'the checkpoint of another run: {said}'):
            fit(*tried[:2], None, tried[2], 2, checkpoint=tmp_path/'run')
        assert equal(values(tried[0]), before)


def test_a_checkpoint_of_another_seed(tmp_path):
    x, t = digits(100)
    a = train_well(x, t, 1, seed=0, hidden=5, checkpoint=tmp_path/'run')[0]
    assert equal(values(train_well(x, t, 1, seed=0, hidden=5, checkpoint=tmp_path/'run')[0]), values(a))
    with pytest.raises(ValueError, match='the checkpoint of another run: seed 0 there, 1 here'):
        train_well(x, t, 1, seed=1, hidden=5, checkpoint=tmp_path/'run')


@pytest.mark.parametrize('spoil', [lambda b: b[:-10], lambda b: b[:20], lambda b: b'', lambda b: b'not safetensors at all',
                                   lambda b: b.replace(b'"facts"', b'"fects"')])
def test_a_spoilt_checkpoint(spoil, tmp_path):
    model, dl, opt = setting()
    fit(model, dl, None, opt, 1, checkpoint=tmp_path/'run')
    (tmp_path/'run').write_bytes(spoil((tmp_path/'run').read_bytes()))
    before = values(model)
    with pytest.raises(ValueError, match='damaged|no facts'): fit(model, dl, None, opt, 2, checkpoint=tmp_path/'run')
    assert equal(values(model), before)
    for facts in ('{}', '[]', 'null', '['*100_000):
        fit(model, dl, None, opt, 1, checkpoint=tmp_path/f'{len(facts)}')
        before = values(model)
        changed(tmp_path/f'{len(facts)}', facts=facts)
        with pytest.raises(ValueError, match='is not a whole checkpoint|no facts'):
            fit(model, dl, None, opt, 2, checkpoint=tmp_path/f'{len(facts)}')
        assert equal(values(model), before)
        os.remove(tmp_path/f'{len(facts)}')


def test_an_interrupt_while_the_last_checkpoint_is_written_changes_nothing(tmp_path, capsys):
    model, dl, opt = setting()
    marks = iter([.9, .1])
    with patch('os.fsync', side_effect=[None, KeyboardInterrupt]):
        history = fit(model, dl, dl, opt, 2, metrics=(lambda s, t: next(marks),), checkpoint=tmp_path/'run')
    straight = setting()
    fit(straight[0], straight[1], straight[1], straight[2], 2)
    assert len(history) == 2 and equal(values(model), values(straight[0])) and 'Stopped' not in capsys.readouterr().out
    assert [f.name for f in tmp_path.iterdir()] == ['run']


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    model, dl, opt = setting()
    fit(model, dl, None, opt, 1, checkpoint=tmp_path/'run')
    before = (tmp_path/'run').read_bytes()
    with patch('os.fsync', side_effect=OSError(errno.ENOSPC, 'No space left on device')):
        with pytest.raises(OSError, match='run could not be written, and is as it was before .No space left') as e:
            fit(model, dl, None, opt, 2, checkpoint=tmp_path/'run')
    assert e.value.errno == errno.ENOSPC
    assert (tmp_path/'run').read_bytes() == before and [f.name for f in tmp_path.iterdir()] == ['run']


# Saved nets.

@on_each_device
def test_a_saved_net_is_the_net(device, tmp_path):
    model, _, _ = setting(device, dropout=.2)
    save_model(model, tmp_path/'net')
    for to in {'cpu', device}:
        again = load_model(tmp_path/'net', to)
        assert equal([p.cpu() for p in values(again)], [p.cpu() for p in values(model)])
        assert again.config == model.config and not again.training and again.w1.device.type == to


def facts(**config): return json.dumps(dict(architecture='TwoLayerNet', config=config))

@pytest.mark.parametrize('change, said', [
    (dict(format='mnist_foundations checkpoint'), "holds 'mnist_foundations checkpoint'"), (dict(format='pt'), "holds 'pt'"),
    (dict(facts='{'), 'no facts'), (dict(facts='[]'), 'does not fit'), (dict(facts='{}'), 'does not fit'),
    (dict(facts=facts(hidden=9)), 'does not fit'), (dict(facts=facts(hidden='8')), 'does not fit'),
    (dict(facts=facts(hidden=8, dropout=2)), 'does not fit'), (dict(facts=facts(hidden=8, depth=2)), 'does not fit'),
    (dict(facts=facts(hidden=-1)), 'does not fit'), (dict(facts=facts(hidden=0)), 'does not fit'),
    (dict(facts=facts(hidden=10**9)), 'does not fit'), (dict(facts=facts(hidden=8, device='cuda')), 'does not fit'),
    (dict(facts=facts(hidden=8).replace('TwoLayerNet', 'ResNet')), 'does not fit'), (dict(facts='['*100_000), 'no facts')])
def test_a_file_that_does_not_fit(change, said, tmp_path):
    model, _, _ = setting()
    save_model(model, tmp_path/'net')
    changed(tmp_path/'net', **change)
    with pytest.raises(ValueError, match=said): load_model(tmp_path/'net')


def test_loading_draws_no_random_numbers_and_refuses_what_is_not_finite(tmp_path):
    model, _, _ = setting()
    save_model(model, tmp_path/'net')
    torch.manual_seed(0)
    load_model(tmp_path/'net')
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    raw = bytearray((tmp_path/'net').read_bytes())
    raw[-4:] = b'\xff\xff\xff\xff'
    (tmp_path/'net').write_bytes(raw)
    with pytest.raises(ValueError, match='is not finite float32'): load_model(tmp_path/'net')


def test_a_loaded_net_does_not_depend_on_its_file(tmp_path):
    model, _, _ = setting()
    save_model(model, tmp_path/'net')
    again = load_model(tmp_path/'net')
    (tmp_path/'net').write_bytes(bytes((tmp_path/'net').stat().st_size))
    assert equal(values(again), values(model))


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_a_file_that_ends_early(tmp_path_factory, share):
    path = tmp_path_factory.getbasetemp()/'short'
    model, _, _ = setting()
    save_model(model, path)
    path.write_bytes((whole := path.read_bytes())[:int(share*len(whole))])
    with pytest.raises(ValueError, match='damaged'): load_model(path)


def test_a_pickle_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self): return os.mkdir, (str(tmp_path/'exploded'),)
    torch.save(Bomb(), tmp_path/'net')
    with pytest.raises(ValueError, match='damaged'): load_model(tmp_path/'net')
    assert not (tmp_path/'exploded').exists()


def test_what_can_not_be_saved_or_found(tmp_path):
    model, _, _ = setting()
    with pytest.raises(FileNotFoundError, match='nowhere is not a file'): load_model(tmp_path/'nowhere')
    with pytest.raises(FileNotFoundError, match='is not a file'): load_model(tmp_path)
    with pytest.raises(TypeError, match='model is a Linear'): save_model(nn.Linear(2, 2), tmp_path/'net')
    with pytest.raises(OSError, match='could not be written'): save_model(model, tmp_path/'no'/'such'/'folder')
    with pytest.raises(FileNotFoundError, match='checkpoint is .* is no folder'):
        fit(model, *[BatchLoader(*digits(), 50)]*2, SGD(model.parameters(), .1), 1, checkpoint=tmp_path/'no'/'run')
    model.b1.data[3] = float('nan')
    with pytest.raises(ValueError, match='b1 has values that are not finite'): save_model(model, tmp_path/'net')
    assert not list(tmp_path.iterdir())


def test_two_writers_at_once_leave_a_whole_file(tmp_path):
    models = [setting(seed=seed)[0] for seed in range(2)]
    def write(model):
        for _ in range(30): save_model(model, tmp_path/'net')
    threads = [threading.Thread(target=write, args=(m,)) for m in models]
    for t in threads: t.start()
    while any(t.is_alive() for t in threads):
        if (tmp_path/'net').exists(): load_model(tmp_path/'net')
    assert any(equal(values(load_model(tmp_path/'net')), values(m)) for m in models)
    assert [f.name for f in tmp_path.iterdir()] == ['net']


# lr_find.

@pytest.mark.parametrize('option', [dict(low=0), dict(low=-1), dict(low=1, high=1), dict(high=float('inf')), dict(n_steps=1)])
def test_lr_find_refuses(option):
    model, dl, opt = setting()
    with pytest.raises(ValueError, match='expected 0 < low < high and at least 2 steps'): lr_find(model, dl, opt, **option)


def test_lr_find_leaves_everything_even_if_it_fails():
    model, dl, opt = setting()
    fit(model, dl, None, opt, 1)
    before, lr = values(model), opt.param_groups[0]['lr']
    found = lr_find(model, dl, opt, high=1e20)                            # ends early, where the loss explodes
    assert len(found.rates) < 100 and found.rates[0] <= found.suggestion*10 < 1e20
    with pytest.raises(ValueError, match='expected one-hot rows'): lr_find(lambda xb: model(xb)[:, :3], dl, opt)
    assert equal(values(model), before) and opt.param_groups[0]['lr'] == lr and not model.training


def test_lr_find_trains_with_dropout_and_from_no_gradients():
    model, dl, opt = setting(dropout=.5)
    dl = BatchLoader(dl.x, dl.y, 32)
    def losses():
        torch.manual_seed(0)
        return lr_find(model, dl, opt, n_steps=5).losses
    model.train()
    was = losses()
    model(dl.x).sum().backward()
    assert losses() == was
    assert losses() == (model.eval(), losses())[1] and not model.training


# The chapter's recipe.

@on_each_device
def test_the_recipe_is_reproducible_and_takes_any_size(device):
    x, t = digits(100, device)
    a, b = (train_well(x, t, epochs=1, seed=3, hidden=20)[0] for _ in range(2))
    assert equal(values(a), values(b)) and a.w1.device.type == device and a.w1.shape == (784, 20)


@pytest.mark.skipif(not full.exists(), reason=f'needs all of MNIST, {full.name} in ../shared/data')
@pytest.mark.skipif('RECIPE' not in os.environ, reason='takes minutes, and runs in CI: RECIPE=1')
def test_the_recipe_reads_more_than_992_of_1000_test_images():
    from mnist_foundations.data import mnist_path
    path = mnist_path(full)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    (x, y), (x_test, y_test) = (load_mnist(path, split, device=device) for split in ('training', 'testing'))
    start = time.time()
    model, _ = train_well(x, one_hot(y))
    accuracy = validate_epoch(model, BatchLoader(x_test, one_hot(y_test), 1000))
    print(f'\nthe recipe of chapter 05: {accuracy:.4f} in {time.time() - start:.0f} seconds')
    assert accuracy >= .992
