"Chapter 08: steps worked by hand and against PyTorch's, states that move between the two, the rate test, one cycle."
import copy, math
from functools import partial

import pytest
import torch
from torch import nn, tensor

from long_experiments import needs_all, piles, recorded_rows, script
from mnist_foundations.data import BatchLoader
from mnist_foundations.optimizers import SGD, Adam, RateTest, lr_find, one_cycle

devices = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU'))]
on_each_device = pytest.mark.parametrize('device', devices)

wrong_answers = ['my_factors = [19, 99]', 'my_points = [.25, .25]',
                 'def my_decay(params, lr, decay):\n    for p in params: p.data.mul_(1 - decay)',
                 'my_adam = broken_adam', 'my_rate = .05']


def leaf(*values, dtype=torch.float32): return tensor(values, dtype=dtype, requires_grad=True)

def after(make, grads, start=1.):
    "Where a single number is after each of the gradients."
    p, way = leaf(start, dtype=torch.float64), []
    opt = make([p])
    for grad in grads:
        p.grad = torch.full_like(p, grad)
        opt.step()
        way.append(p.item())
    return way


# Steps by hand.

def test_steps_of_sgd_by_hand():
    assert after(partial(SGD, lr=.1), [1, -2]) == pytest.approx([.9, 1.1])
    # velocities 1, then 0.5*1 + 2 = 2.5, then 0.5*2.5 + 0 = 1.25
    assert after(partial(SGD, lr=.1, momentum=.5), [1, 2, 0]) == pytest.approx([.9, .65, .525])
    # the same velocities, and each step is the gradient plus half of the new one: 1.5, 3.25, 0.625
    assert after(partial(SGD, lr=.1, momentum=.5, nesterov=True), [1, 2, 0]) == pytest.approx([.85, .525, .4625])
    # gradients 1 + 0.5*1 = 1.5, then 0 + 0.5*0.85 = 0.425
    assert after(partial(SGD, lr=.1, weight_decay=.5), [1, 0]) == pytest.approx([.85, .8075])


def test_decay_goes_through_the_velocity_by_hand():
    # gradients 1.5, then 0 + 0.5*0.85 = 0.425 on top of half of 1.5: the velocity is 1.175
    assert after(partial(SGD, lr=.1, momentum=.5, weight_decay=.5), [1, 0]) == pytest.approx([.85, .7325])
    # steps 1.5 + 0.75 = 2.25, then gradient 0.5*0.775 = 0.3875, velocity 1.1375, step 0.95625
    options = dict(lr=.1, momentum=.5, nesterov=True, weight_decay=.5)
    assert after(partial(SGD, **options), [1, 0]) == pytest.approx([.775, .679375])


def test_steps_of_adam_by_hand():
    make = partial(Adam, lr=.1, betas=(.5, .75), eps=0)
    # step 1: mean 2/1 after warming up, size sqrt(4); step 2: mean (1 + 1)/2/0.75, square (0.75*1 + 1)/(1 - 0.5625)
    first = 1 - .1
    mean, square = (.5*1 + .5*4)/.75, (.75*1 + .25*16)/(1 - .75**2)
    assert after(make, [2, 4]) == pytest.approx([first, first - .1*mean/square**.5])
    assert after(partial(Adam, lr=.1, eps=1.), [1]) == pytest.approx([.95])          # 1/(1 + 1) of the rate
    # the decay is added to the gradient: -1 + 2*1 turns the step round
    assert after(partial(Adam, lr=.1, weight_decay=2.), [-1]) == pytest.approx([.9])
    assert after(Adam, [5.]) == pytest.approx([.999])                               # the default rate


def test_the_defaults_are_pytorchs():
    for ours, theirs in ((Adam, torch.optim.Adam), (partial(SGD, lr=.1), partial(torch.optim.SGD, lr=.1))):
        defaults = theirs([leaf(1.)]).defaults
        assert all(defaults[name] == value for name, value in ours([leaf(1.)]).defaults.items())


# Against PyTorch's.

SGDS = [dict(lr=.1, momentum=m, nesterov=n, weight_decay=w) for m, n in ((0, False), (.9, False), (.9, True)) for w in (0, .01)]
ADAMS = [dict(lr=.01), dict(lr=.01, weight_decay=.1), dict(lr=.01, betas=(.5, .9), eps=.01)]
PAIRS = [(SGD, torch.optim.SGD, o) for o in SGDS] + [(Adam, torch.optim.Adam, o) for o in ADAMS]
each_pair = pytest.mark.parametrize('ours, theirs, options', PAIRS, ids=lambda v: getattr(v, '__name__', None))

def twins(device='cpu', dtype=torch.float32):
    "Two equal lists of parameters; the last gets no gradient."
    torch.manual_seed(0)
    params = [torch.randn(size, dtype=dtype) for size in ((20, 10), 10, 3)]
    return [[p.clone().to(device).requires_grad_() for p in params] for _ in range(2)]

def same_steps(a, b, opt_a, opt_b, n, seed=1):
    "n steps of both, each on the same random gradients."
    torch.manual_seed(seed)
    for _ in range(n):
        for p, q in zip(a[:2], b[:2]):
            p.grad = torch.randn(p.shape, dtype=p.dtype).to(p.device)
            q.grad = p.grad.clone()
        opt_a.step()
        opt_b.step()

def difference(a, b): return max((p - q).abs().max().item() for p, q in zip(a, b, strict=True))


@on_each_device
@each_pair
def test_a_hundred_steps_are_pytorchs(ours, theirs, options, device):
    a, b = twins(device)
    untouched = a[2].detach().clone()
    same_steps(a, b, ours(a, **options), theirs(b, **options), 100)
    assert difference(a, b) <= (0 if ours is SGD and device == 'cpu' else 1e-6)
    assert torch.equal(a[2], untouched)                                         # it had no gradient


@each_pair
@pytest.mark.parametrize('there', [True, False])
def test_a_state_moves_to_pytorchs_and_back(ours, theirs, options, there, tmp_path):
    a, b = twins()
    first, second = (ours, theirs) if there else (theirs, ours)
    opt, straight = first(a, **options), theirs(b, **options)
    same_steps(a, b, opt, straight, 50)
    torch.save(opt.state_dict(), tmp_path/'state.pt')
    moved = second(a, lr=9.)
    moved.load_state_dict(torch.load(tmp_path/'state.pt'))
    same_steps(a, b, moved, straight, 50, seed=2)
    assert difference(a, b) <= (0 if ours is SGD else 1e-6)


def test_an_optimizer_that_was_copied_goes_on():
    for make in (partial(SGD, lr=.1, momentum=.9), Adam):
        p = leaf(1., 2.)
        opt = make([p])
        p.grad = torch.ones(2)
        opt.step()
        twin = copy.deepcopy(opt)
        q = twin.param_groups[0]['params'][0]
        for each, o in ((p, opt), (q, twin)):
            each.grad = torch.full((2,), 3.)
            o.step()
        assert torch.equal(p, q) and p is not q


def test_a_state_of_an_older_pytorch_that_has_no_velocity_yet():
    p = leaf(1.)
    opt = SGD([p], .1, momentum=.5)
    state = opt.state_dict()
    state['state'] = {0: {'momentum_buffer': None}}
    opt.load_state_dict(state)
    p.grad = torch.ones(1)
    opt.step()
    assert p.item() == pytest.approx(.9)


@pytest.mark.parametrize('theirs, ours, said', [
    (partial(torch.optim.SGD, lr=.1, momentum=.9, dampening=.5), partial(SGD, lr=.1), 'dampening=0.5'),
    (partial(torch.optim.SGD, lr=.1, maximize=True), partial(SGD, lr=.1), 'maximize=True'),
    (partial(torch.optim.Adam, amsgrad=True), Adam, 'amsgrad=True'),
    (torch.optim.AdamW, Adam, 'decoupled_weight_decay=True'),
    (torch.optim.Adam, partial(SGD, lr=.1), "no 'momentum'"),
    (partial(torch.optim.SGD, lr=.1), Adam, "no 'betas'")])
def test_a_state_that_asks_for_what_ours_cannot_do(theirs, ours, said):
    opt = ours([leaf(1.)])
    before = opt.state_dict()
    with pytest.raises(ValueError, match=said): opt.load_state_dict(theirs([leaf(1.)]).state_dict())
    assert opt.state_dict() == before


@each_pair
def test_a_step_leaves_the_gradient_and_keeps_nothing_of_it(ours, theirs, options):
    p, grad = leaf(1., 2.), tensor([1., -3.])
    opt = ours([p], **options)
    for _ in range(3):
        p.grad = grad.clone()
        opt.step()
        assert torch.equal(p.grad, grad)
        p.grad.fill_(1e6)                   # as zero_grad(set_to_none=False) would, it writes into the same memory
    q = leaf(1., 2.)
    opt = theirs([q], **options)
    for _ in range(3):
        q.grad = grad.clone()
        opt.step()
    assert torch.allclose(p, q)


@pytest.mark.parametrize('make', [partial(SGD, lr=.1, momentum=.9), Adam])
def test_a_closure_records_gradients_and_its_loss_comes_back(make):
    p = leaf(3.)
    opt = make([p])
    assert opt.step() is None                                        # no closure, no gradient: nothing happens
    assert p.item() == 3
    def closure():
        opt.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss
    assert opt.step(closure).item() == 9 and p.item() < 3


@pytest.mark.parametrize('make', [partial(SGD, lr=.1), partial(Adam, lr=.1)])
def test_groups_have_options_of_their_own_and_schedulers_of_pytorch_change_them(make):
    a, b = leaf(1.), leaf(1.)
    opt = make([dict(params=[a]), dict(params=[b], lr=.2)])
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 1, .5)
    for _ in range(2):
        a.grad, b.grad = torch.ones(1), torch.ones(1)
        opt.step()
        scheduler.step()
    assert a.item() == pytest.approx(1 - .1 - .05) and b.item() == pytest.approx(1 - .2 - .1)


@pytest.mark.parametrize('make, said', [
    (lambda p: SGD([], .1), 'empty parameter list'), (lambda p: SGD([p], 0), 'lr is 0'), (lambda p: Adam([p], -1), 'lr is -1'),
    (lambda p: SGD([p], .1, 1.), 'momentum is 1.0'), (lambda p: SGD([p], .1, weight_decay=-1), 'weight_decay is -1'),
    (lambda p: SGD([p], .1, nesterov=True), 'nesterov needs a momentum'), (lambda p: Adam([p], betas=(.9, 1.)), 'betas is 1.0'),
    (lambda p: Adam([p], betas=(-.1, .9)), 'betas is -0.1'), (lambda p: Adam([p], eps=-1), 'eps is -1'),
    (lambda p: Adam([p], weight_decay=-1), 'weight_decay is -1')])
def test_options_that_make_no_sense(make, said):
    with pytest.raises(ValueError, match=said): make(leaf(1.))


def test_a_decay_may_be_larger_than_one():
    SGD([leaf(1.)], .1, weight_decay=2.), Adam([leaf(1.)], weight_decay=2., eps=2.)


# The rate test.

def one_number(lrs=(1.,), momentum=0.):
    "A number 1 in each group, what they add up to as a model, and its optimizer."
    params = [leaf(1., dtype=torch.float64) for _ in lrs]
    opt = SGD([dict(params=[p], lr=lr) for p, lr in zip(params, lrs)], 1., momentum=momentum)
    return params, lambda xb: sum(params), opt

def told(*losses):
    "A loss function that returns these, one after the other, whatever happens; from the last on for ever."
    queue = list(losses)
    return lambda scores, yb: scores.sum()*0 + (queue.pop(0) if len(queue) > 1 else queue[0])


def test_rates_rise_by_a_factor_and_losses_are_smoothed_by_hand():
    _, model, opt = one_number()
    found = lr_find(model, [(None, None)], opt, told(1., 2., 1., 1.), low=.01, high=10, n_steps=4)
    assert found.rates == pytest.approx([.01, .1, 1, 10])
    means = [.1, .09 + .2, .261 + .1, .3249 + .1]
    assert found.losses == pytest.approx([m/(1 - .9**n) for n, m in enumerate(means, 1)])


def test_each_step_is_taken_with_its_rate():
    _, model, opt = one_number()
    seen = []
    def loss_func(scores, yb):
        seen.append(scores.item())
        return (scores**2).sum()/2
    lr_find(model, [(None, None)], opt, loss_func, low=.01, high=1, n_steps=3)
    assert seen == pytest.approx([1, .99, .99*.9])


def test_it_ends_once_the_loss_is_four_times_its_lowest_or_no_number():
    _, model, opt = one_number()
    # smoothed: 1, then (0.09 + 0.1a)/0.19, which is 4 for a = 6.7
    for a, n in ((6.6, 5), (6.8, 2), (math.nan, 1), (math.inf, 1)):
        found = lr_find(model, [(None, None)], opt, told(1., a, 1.), n_steps=5)
        assert len(found.rates) == len(found.losses) == n


def test_a_loss_that_is_no_number_from_the_start():
    params, model, opt = one_number()
    with pytest.raises(ValueError, match='the first loss is nan'):
        lr_find(model, [(None, None)], opt, told(math.nan))
    assert params[0].item() == 1


def test_groups_keep_their_ratios():
    params, model, opt = one_number(lrs=(.2, .1))
    seen = []
    opt.register_step_pre_hook(lambda opt, args, kwargs: seen.append([g['lr'] for g in opt.param_groups]))
    lr_find(model, [(None, None)], opt, told(1.), low=.01, high=1, n_steps=3)
    assert seen == [pytest.approx([r, r/2]) for r in (.01, .1, 1)]
    assert [g['lr'] for g in opt.param_groups] == [.2, .1]


class Mixed(nn.Module):
    "A net with dropout, a normalisation that is frozen, one that isn't, and a buffer that is replaced at each call."
    def __init__(self):
        super().__init__()
        self.layer, self.drop, self.out = nn.Linear(4, 5), nn.Dropout(.5), nn.Linear(5, 3)
        self.frozen, self.norm = nn.BatchNorm1d(5), nn.BatchNorm1d(5)
        self.register_buffer('calls', torch.zeros(()), persistent=False)
        self.eval()
        self.norm.train()
    def forward(self, x):
        self.calls = self.calls + 1
        return self.out(self.drop(self.norm(self.frozen(self.layer(x).relu()))))

def mixed(device, make):
    torch.manual_seed(0)
    model = Mixed().to(device)
    x, y = torch.rand(30, 4).to(device), torch.randint(3, (30,)).to(device)
    opt = make(model.parameters())
    for p in model.parameters(): p.grad = torch.ones_like(p)
    opt.step()                                                      # so that it has a state
    return model, BatchLoader(x, y, 10, shuffle=True), opt

def whole(model, opt):
    "All that there is to remember, as one list of tensors and numbers."
    states = [v for p in model.parameters() for v in opt.state[p].values()]
    return [*model.parameters(), *model.buffers(), *states, *(p.grad for p in model.parameters()), torch.get_rng_state(),
            *(tensor(m.training) for m in model.modules()), *(tensor(g['lr']) for g in opt.param_groups)]


@on_each_device
@pytest.mark.parametrize('make', [partial(SGD, lr=.1, momentum=.9), Adam, partial(torch.optim.SGD, lr=.1, momentum=.9)])
def test_everything_is_as_before(make, device):
    model, dl, opt = mixed(device, make)
    before = [t.detach().clone() for t in whole(model, opt)]
    lr_find(model, dl, opt, low=1e-3, n_steps=7)                    # more steps than batches
    after = whole(model, opt)
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert not model.training and model.norm.training and not model.frozen.training


def test_everything_is_as_before_also_where_the_loss_fails():
    model, dl, opt = mixed('cpu', Adam)
    before, calls = [t.detach().clone() for t in whole(model, opt)], []
    def loss_func(scores, yb):
        calls.append(1)
        if len(calls) == 3: raise KeyError('third')
        return scores.sum()
    with pytest.raises(KeyError): lr_find(model, dl, opt, loss_func)
    assert all(torch.equal(a, b) for a, b in zip(whole(model, opt), before, strict=True))


def test_it_trains_in_train_mode_and_old_gradients_do_not_count():
    model, dl, opt = mixed('cpu', partial(SGD, lr=.1))
    modes = []
    def loss_func(scores, yb):
        modes.extend(m.training for m in model.modules())
        return scores.sum()*0 + 1.
    way = []
    opt.register_step_post_hook(lambda opt, args, kwargs: way.append(model.out.bias.detach().clone()))
    before = model.out.bias.detach().clone()
    lr_find(model, dl, opt, loss_func, n_steps=2)
    assert all(modes) and all(torch.equal(b, before) for b in way)     # the loss is flat, and the old gradients were 1


def test_a_run_after_it_is_the_run_without_it():
    def run(test):
        model, dl, opt = mixed('cpu', partial(SGD, lr=.1, momentum=.9))
        model.train()
        if test: lr_find(model, dl, opt, n_steps=4)
        for xb, yb in dl:
            opt.zero_grad()
            nn.functional.cross_entropy(model(xb), yb).backward()
            opt.step()
        return model.state_dict()
    for a, b in zip(run(True).values(), run(False).values(), strict=True): assert torch.equal(a, b)


def test_a_parameter_that_gets_no_gradient_is_refused_unless_it_is_frozen():
    used, other = leaf(1.), leaf(1.)
    opt = SGD([used, other], .1)
    with pytest.raises(ValueError, match=r'params\[1\] got no gradient'):
        lr_find(lambda xb: used, [(None, None)], opt, told(1.), n_steps=3)
    other.requires_grad_(False)
    assert len(lr_find(lambda xb: used, [(None, None)], opt, told(1.), n_steps=3).rates) == 3


def test_the_suggestion_is_where_the_loss_is_lowest_and_is_drawn():
    found = RateTest([.1, .5, 2.], [3., 1., 2.])
    assert found.suggestion == .5
    data, meta = found._repr_mimebundle_()
    assert 'image/png' in data and '0.5' in meta['image/png']['alt']


@pytest.mark.parametrize('options, said', [(dict(low=1., high=.1), 'expected 0 < low < high'), (dict(low=0), 'expected 0 < low'),
                                           (dict(high=math.inf), 'low and high are'), (dict(low=1., high=1.), 'low and high are'),
                                           (dict(n_steps=1), 'n_steps'), (dict(n_steps=2.5), 'n_steps')])
def test_tests_that_make_no_sense(options, said):
    _, model, opt = one_number()
    with pytest.raises(ValueError, match=said): lr_find(model, [(None, None)], opt, told(1.), **options)


def test_a_loader_without_batches():
    _, model, opt = one_number()
    with pytest.raises(ValueError, match='dl has no batches'): lr_find(model, [], opt)


def test_the_defaults_of_the_rate_test():
    _, model, opt = one_number()
    found = lr_find(model, [(None, None)], opt, told(1.))
    assert len(found.rates) == 100 and found.rates[0] == pytest.approx(1e-4) and found.rates[-1] == pytest.approx(10)


# One cycle.

def test_one_cycle_by_hand():
    rate = one_cycle(2., 100, warmup=.2, low=.5, final=.25)
    # from 1 up to 2 in 20 steps, then down to 0.5 in 80; half way in between, a quarter of the way at (1 - sqrt(1/2))/2
    quarter = (1 - .5**.5)/2
    expected = {0: 1, 5: 1 + quarter, 10: 1.5, 20: 2, 40: 2 - 1.5*quarter, 60: 1.25, 100: .5, 200: .5}
    assert {step: rate(step) for step in expected} == pytest.approx(expected)


def test_the_defaults_of_one_cycle_by_hand():
    rate = one_cycle(1., 1000)                            # from 0.04 up to 1 in a quarter of the steps, down to 1e-5
    expected = {0: .04, 125: .52, 250: 1, 625: (1 + 1e-5)/2, 1000: 1e-5}
    assert {step: rate(step) for step in expected} == pytest.approx(expected)


def test_the_defaults_are_fastais():
    from fastai.callback.schedule import combined_cos
    rate, theirs = one_cycle(.2, 1000), combined_cos(.25, .2/25, .2, .2/1e5)
    assert [rate(step) for step in range(0, 1000, 7)] == pytest.approx(
        [theirs(step/1000) for step in range(0, 1000, 7)], rel=1e-4)           # theirs counts in float32


def test_one_cycle_for_each_group():
    for lrs in ([.1, .2], (.1, .2)):
        rate = one_cycle(lrs, 10)
        for step in (0, 3, 9): assert rate(step) == pytest.approx([one_cycle(lr, 10)(step) for lr in lrs])
    assert one_cycle([.1], 10)(0) == pytest.approx([.004])                # a list of one stays a list


def test_a_cycle_of_one_step_and_one_without_warming_up():
    assert one_cycle(.2, 1, warmup=0)(0) == pytest.approx(.2) and one_cycle(.2, 4, warmup=0, final=0)(4) == 0
    assert one_cycle(.2, 4, low=2.)(0) == pytest.approx(.4) and one_cycle(.2, 4, final=2.)(4) == pytest.approx(.4)


@pytest.mark.parametrize('make, said', [(lambda: one_cycle(0, 10), 'lr is 0'), (lambda: one_cycle([.1, -1], 10), 'lr is -1'),
                                        (lambda: one_cycle(.1, 0), 'n_steps is 0'), (lambda: one_cycle(.1, 10, warmup=1), 'warmup is 1'),
                                        (lambda: one_cycle(.1, 10, low=-1), 'low is -1'), (lambda: one_cycle(.1, 10, final=-1), 'final is -1')])
def test_cycles_that_make_no_sense(make, said):
    with pytest.raises(ValueError, match=said): make()


# The searches.

@needs_all
def test_a_short_row_of_the_searches_comes_out_again():
    row = recorded_rows('optimizers').query("purpose == 'short'").iloc[0]
    again = script('optimizers').one_run(piles(), 'short', row.optimizer, row.schedule, row.rule, row.lr, row.weight_decay,
                                         int(row.seed), int(row.images), int(row.epochs))
    assert again['valid_accuracy'] == pytest.approx(row.valid_accuracy, abs=.005)
    assert again['valid_loss'] == pytest.approx(row.valid_loss, abs=.02)
