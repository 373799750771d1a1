"Chapter 14: many processes, one net."
import io, json, os, random, signal, socket, subprocess, sys, time
from contextlib import redirect_stderr, suppress
from pathlib import Path
from unittest.mock import patch

import cloudpickle
import pytest
import torch
from torch import distributed as dist, nn, tensor
from torch.testing import assert_close

from long_experiments import needs_all, recorded_rows, script
from mnist_foundations import distributed
from mnist_foundations.convolution import SmallConvNet, train_conv
from mnist_foundations.data import BatchLoader
from mnist_foundations.distortion import train_well
from mnist_foundations.distributed import *
from mnist_foundations.keeping import load_model
from mnist_foundations.optimizers import SGD
from mnist_foundations.processes import Workers, rank, world_size
from mnist_foundations.training import Hook, TwoLayerNet, fit

cloudpickle.register_pickle_by_value(sys.modules[__name__])      # the workers can't import this file
HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.xdist_group('processes')                # one after the other: each of them starts several

# For the exercises: an answer to each that has to be refused.
wrong_answers = ['shares, weights = [3, 3, 3, 1], [.25, .25, .25, .25]', 'bytes_sent = 4*900_000',
                 'def mean_over_all(mean, n): return (all_sum(torch.tensor(mean*n))/100/world_size()).item()',
                 'def accumulate(params, x, y, sizes):\n    for xb, yb in zip(x.split(sizes), y.split(sizes)):\n'
                 '        (softmax_cross_entropy(simple_net(xb, *params), yb)/len(sizes)).backward()', 'images_seen = (1000, 500)']


@pytest.fixture(scope='module')
def workers():
    workers = Workers(3, timeout=20)
    yield workers
    workers.close()


def some(n=41, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 784, generator=g).to(dtype), torch.randint(0, 10, (n,), generator=g)


# Shares and sums.

@pytest.mark.parametrize('n', [1, 2, 3])
def test_shares_are_all_rows_once_in_order_and_nearly_equal(workers, n):
    for rows in (0, 2, 7, 8):
        shares = workers(n, lambda: list(range(rows))[my_share(rows)])
        assert sum(shares, []) == list(range(rows))
        sizes = [len(share) for share in shares]
        assert sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1


@pytest.mark.parametrize('n', [1, 2, 3])
def test_sums_and_weighted_sums(workers, n):
    def sums():
        mine = tensor([1., 2])*(rank() + 1)
        total = all_sum(mine)
        assert total is mine
        several = [torch.full((2, 3), rank() + 1.).double(), tensor(10.), torch.ones(1, 2, 2, 2).to(memory_format=torch.channels_last)]
        views = [t.T for t in several[:1]] + several[1:]
        weighted_sum(views, (rank() + 1)/6)
        return total, views
    for total, (a, b, c) in workers(n, sums):
        assert_close(total, tensor([1., 2])*n*(n + 1)/2)
        share = sum(r + 1 for r in range(n))/6
        assert_close(a, torch.full((3, 2), sum((r + 1)**2 for r in range(n))/6).double())
        assert_close(b, tensor(10*share))
        assert_close(c, torch.full((1, 2, 2, 2), share))


@pytest.mark.parametrize('n', [1, 2, 3])
def test_the_ring_adds_up_as_the_library_does_and_counts_its_bytes(workers, n):
    def around(size, dtype):
        torch.manual_seed(rank())
        ours, moments = (torch.randn(size)*10).to(dtype), []
        theirs = all_sum(ours.clone())
        sent = ring_all_reduce(ours, lambda: moments.append(1))
        assert_close(ours, theirs)
        return sent, len(moments)
    for size, dtype in ((12, torch.float32), (13, torch.float64), (2, torch.int64), ((4, 3), torch.float32)):
        seen = workers(n, around, size, dtype)
        numbers = size if isinstance(size, int) else 12
        assert sum(sent for sent, _ in seen) == 2*(n - 1)*numbers*torch.empty(0, dtype=dtype).element_size()
        assert all(moments == 2*(n - 1) for _, moments in seen)
        if size == 12: assert all(sent == 2*(n - 1)*12*4//n for sent, _ in seen)
        if size == 13: assert [sent for sent, _ in seen] == {1: [0], 2: [104, 104], 3: [144, 136, 136]}[n]     # pieces of 5, 4 and 4, twice one of them


# Together, and with fit.

@pytest.mark.parametrize('n', [1, 2, 3])
def test_all_get_all_scores_and_in_training_their_own(workers, n):
    x, _ = some(8)
    torch.manual_seed(0)
    net = TwoLayerNet(5).double().eval()
    def scores(rows):
        together = Together(net).eval()
        with torch.no_grad(): return together(x[:rows]), torch.equal(together.train()(x[:3]), net(x[:3]))
    for rows in (2, 8, 7):
        for mine, own in workers(n, scores, rows):
            assert own
            assert_close(mine, net(x[:rows]).detach(), rtol=0, atol=1e-14)


@pytest.mark.parametrize('n', [2, 3])
def test_a_batch_is_shared_out_and_who_has_nothing_takes_one(workers, n):
    def shares():
        dl = Shares(BatchLoader(torch.arange(9.)[:, None]/9, torch.arange(9), 4))
        return len(dl), [(yb.tolist(), dl._sizes) for _, yb in dl]
    seen = workers(n, shares)
    assert {length for length, _ in seen} == {3}
    for i, whole in enumerate(([0, 1, 2, 3], [4, 5, 6, 7], [8])):
        mine = [batches[i] for _, batches in seen]
        assert sum([y for y, (size, _) in mine if size], []) == whole
        assert all(len(y) == max(size, 1) and of == len(whole) for y, (size, of) in mine)
    assert [sizes for _, sizes in seen[-1][1]][-1] == (0, 1) and seen[-1][1][-1][0] == [8]


def train(seed_by_rank=False, batch_size=7, kind=TwoLayerNet, epochs=17):
    "Parameters, buffers and rows after 102 steps; the last batch of each epoch has one image."
    x, y = some(36)
    torch.manual_seed(rank() if seed_by_rank else 0)
    net = kind().double()
    dl = BatchLoader(x, y, batch_size, shuffle=True, generator=torch.Generator().manual_seed(1))
    with redirect_stderr(io.StringIO()):
        history = fit(Together(net), Shares(dl), BatchLoader(x, y, 10), SGD(net.parameters(), .02, momentum=.9), epochs,
                      hooks=[AverageGradients()])
    return [t.detach() for t in net.state_dict().values()], [{**row, 'seconds': 0} for row in history]


@pytest.mark.parametrize('n', [2, 3])
def test_many_processes_end_where_one_does(workers, n):
    (alone, rows), = workers(1, train)
    for i, (together, other_rows) in enumerate(first := workers(n, train)):
        for a, b, of_first in zip(alone, together, first[0][0]):
            assert_close(a, b, rtol=0, atol=1e-10)
            assert torch.equal(b, of_first)
        for row, other in zip(rows, other_rows, strict=True): assert_close(row, other, rtol=1e-10, atol=1e-12)
        assert other_rows == first[0][1]


def test_without_weights_they_end_elsewhere(workers):
    def unweighted():
        with patch.object(distributed, 'weighted_sum', lambda tensors, weight: weighted_sum(tensors, 1/world_size())): return train()[0]
    (alone, _), = workers(1, train)
    assert max((a - b).abs().max() for a, b in zip(alone, workers(2, unweighted)[0])) > 1e-3


def test_all_begin_with_what_the_first_has(workers):
    for a, b in zip(workers(2, train)[0][0], workers(2, train, True)[1][0]): assert torch.equal(a, b)


def test_means_that_normalisation_keeps_are_the_same_everywhere(workers):
    x, y = some(8)
    first, second = workers(2, train, False, 12, SmallConvNet, 2)
    for a, b in zip(first[0], second[0]): assert torch.equal(a, b)
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(784), nn.Linear(784, 10)).double()
    def one_step():
        dl = Shares([(x, y)])
        with redirect_stderr(io.StringIO()): fit(Together(net), dl, None, SGD(net.parameters(), .1), 1, hooks=[AverageGradients()])
        return net[0].running_mean
    for mean in workers(2, one_step): assert_close(mean, .1*x.mean(0))


def test_frozen_parameters_stay(workers):
    def frozen():
        torch.manual_seed(0)
        net = TwoLayerNet(5).double()
        net.w1.requires_grad_(False)
        before = net.w1.clone()
        with redirect_stderr(io.StringIO()): fit(Together(net), Shares([some(5)]), None, SGD(net.parameters(), .1), 1, hooks=[AverageGradients()])
        return torch.equal(net.w1, before), net.w2.detach()
    (kept, first), (_, second) = workers(2, frozen)
    assert kept and torch.equal(first, second)


# Who doesn't fit.

def test_what_differs_is_named(workers):
    def differ(name): check_alike(same=[1, {'a': 2}], **{name: rank()//2})
    workers(2, differ, 'version')
    with pytest.raises(ValueError, match='^process 2 does not fit process 0: classes is 1 there and 0 here$'): workers(3, differ, 'classes')


@pytest.mark.parametrize('name', ['version', 'torch', 'data', 'validation', 'classes', 'lr', 'seed', 'epochs', 'checkpoint'])
def test_a_process_with_something_else_is_refused_before_the_first_step(workers, tmp_path, name):
    def start():
        odd, (x, y), given = rank() == 1, some(20), dict(lr=.1, batch_size=8, epochs=1)
        if name in ('lr', 'seed', 'epochs') and odd: given[name] = 3
        if name == 'data' and odd: x[3, 5] += 1e-6
        valid = (x.clone(), y)
        if name == 'validation' and odd: valid[0][3, 5] += 1e-6
        if name == 'checkpoint': given['checkpoint'] = tmp_path/str(rank())/'file'
        if name == 'checkpoint' and odd: given['checkpoint'].write_text('something')
        net = TwoLayerNet(5, n_classes=9 if name == 'classes' and odd else 10).double()
        before = [p.clone() for p in net.parameters()]
        with patch.object(distributed, '__version__', '0.0.1' if name == 'version' and odd else '1'), \
             patch.object(torch, '__version__', '2.0' if name == 'torch' and odd else '3'):
            try: train_together(net, x, y, valid=valid, **given)
            except ValueError as e: return str(e), all(map(torch.equal, before, net.parameters()))
    if name == 'checkpoint':
        for r in '01': (tmp_path/r).mkdir()
    (first, untouched), (second, _) = workers(2, start)
    asked = dict(validation='data.2', data='data.0', classes='net.w2').get(name, name)
    assert first == second and untouched and first.startswith(f'process 1 does not fit process 0: {asked} is')


# train_together.

class Note(Hook):
    def __init__(self): self._seen = []
    def after_batch(self, run): self._seen.append(run.loss.item())


@pytest.mark.parametrize('net, kind, by_chapter', [('two-layer', TwoLayerNet, train_well), ('conv', SmallConvNet, train_conv)])
def test_the_recipes_are_those_of_the_chapters(net, kind, by_chapter):
    x, y, runs = *some(300, dtype=torch.float32), []
    class Stop(Exception): pass
    def look(model, dl, valid_dl, opt, epochs, schedule, augment, hooks):
        group, batches = opt.param_groups[0], getattr(dl, 'dl', dl)
        runs.append(({name: value for name, value in group.items() if name != 'params'}, type(opt), batches.batch_size, batches.shuffle,
                     [schedule(step) for step in range(2*len(batches))], augment.amounts))
        raise Stop
    for module in ('distortion', 'convolution', 'distributed'): patch(f'mnist_foundations.{module}.fit', look).start()
    try:
        with suppress(Stop): by_chapter(x, y, epochs=2)
        with suppress(Stop): train_together(kind(), x, y, **recipes[net], epochs=2, augment=distributed.Distort())
    finally: patch.stopall()
    assert len(runs) == 2 and runs[0] == runs[1]


def test_the_same_order_and_other_random_numbers_in_each_process(workers):
    x, y = some(24, dtype=torch.float32)
    def drawn(seed):
        numbers, order = [], []
        def augment(xb):
            numbers.append(torch.rand(1).item())
            order.append(xb[:, 0].tolist())
            return xb
        with redirect_stderr(io.StringIO()): train_together(TwoLayerNet(5), x, y, .1, 8, epochs=2, seed=seed, augment=augment)
        return numbers, order
    (a, rows_a), (b, rows_b) = workers(2, drawn, 0)
    assert not set(a) & set(b)
    for epoch in (slice(0, 3), slice(3, 6)):
        assert sorted(sum(rows_a[epoch] + rows_b[epoch], [])) == sorted(x[:, 0].tolist())      # each image once
    assert workers(2, drawn, 0)[0] == (a, rows_a) and workers(2, drawn, 1)[0][1] != rows_a and workers(2, drawn, 1)[0][0] != a
    assert rows_a[:3] != rows_a[3:]


def test_measured_and_kept_and_gone_on_from(workers, tmp_path):
    x, y = some(24, dtype=torch.float32)
    def run(epochs_now, path, stop=None):
        class Stop(Hook):
            def after_batch(self, run):
                if run.step == stop: raise ValueError('stop')
        net = TwoLayerNet(5, .2)
        with redirect_stderr(io.StringIO()):
            try: history = train_together(net, x, y, .1, 8, 1e-4, epochs_now, valid=(x, y), checkpoint=path, hooks=[Stop()])
            except ValueError: return None
        return [p.detach() for p in net.parameters()], len(history), history['batch_accuracy'][-1]
    def straight(): return torch.manual_seed(0) and run(3, None)
    def in_parts(): return torch.manual_seed(0) and (run(3, tmp_path/'kept', 7), run(3, tmp_path/'kept'))[1]
    for (a, length, share), (b, other_length, other_share) in zip(workers(2, straight), workers(2, in_parts)):
        assert (length, share) == (other_length, other_share) == (3, other_share)
        for one, other in zip(a, b): assert torch.equal(one, other)
    assert [file.name for file in tmp_path.iterdir()] == ['kept']
    def refused():
        try: train_together(TwoLayerNet(5, .2), x, y, .1, 8, 1e-4, 3, valid=(x, y), checkpoint=tmp_path/'kept')
        except ValueError as e: return str(e)
    assert 'processes is 2 there and 3 here' in workers(3, refused)[2]


# The model of the cost, and the experiment.

def test_the_parts_of_a_step():
    numbers = dict(n_bytes=4000, fixed=1., image=.5, latency=.1, bandwidth=1000.)
    assert step_seconds(1, 10, **numbers) == pytest.approx(1 + 5)
    assert step_seconds(2, 10, **numbers) == pytest.approx(1 + 2.5 + 2*(.1 + 2))
    assert step_seconds(4, 10, **numbers) == pytest.approx(1 + 1.5 + 6*(.1 + 1))


@needs_all
def test_a_row_of_the_experiment_comes_out_again(monkeypatch):
    monkeypatch.setenv('MNIST_FOUNDATIONS_DATA', str(HERE.parent.parent/'shared'/'data'/'mnist_png.tgz'))
    monkeypatch.syspath_prepend(HERE.parent/'benchmarks')
    monkeypatch.setitem(sys.modules, 'script_distributed', experiment := script('distributed'))
    cloudpickle.register_pickle_by_value(experiment)
    workers = Workers(2)
    with patch.object(experiment, 'HOW', [('by hand', 2, 1)]): row, *_ = experiment.epoch_rows(workers, 2000, 1, ['two-layer'])
    workers.close()
    recorded = recorded_rows('distributed').query('purpose == "short" and how == "by hand"').iloc[0]
    assert row['train_loss'] == pytest.approx(recorded.train_loss, rel=1e-3) and row['images'] == recorded.images


# The command.

def run(command, **kwargs):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300,
                          env=os.environ | dict(OMP_NUM_THREADS='1'), **kwargs)

def alone(*options): return run([sys.executable, '-m', 'mnist_foundations.distributed', '--data', 'sample', *options])

def torchrun(n, what, *options, restarts=0):
    "The command with accidents, as torchrun starts it."
    return [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(n), '--max-restarts', str(restarts),
            str(HERE/'a_worker_dies.py'), json.dumps(what), '--data', 'sample', '--hidden', '20', '--dropout', '.2', *map(str, options)]

def weights(path): return list(load_model(path).state_dict().values())


def test_one_process_without_torchrun(tmp_path):
    done = alone('--epochs', 1, '--net', 'conv', '--no-distortion', '--lr', .05, '--batch-size', 200, '--save', tmp_path/'net')
    assert not done.returncode, done.stderr
    assert 'validation images: 0.' in done.stdout and 'processes: 1 (' in done.stdout
    assert 'epoch 1 of 1: train_loss' in done.stderr and 'batch_accuracy 0.' in done.stderr
    load_model(tmp_path/'net', SmallConvNet())


@pytest.mark.parametrize('options, said', [
    (['--net', 'conv', '--hidden', '5'], '--hidden and --dropout are for --net two-layer'), (['--net', 'other'], 'invalid choice'),
    (['--epochs', '0'], 'process 0: epochs is 0'), (['--data', 'nowhere'], 'process 0: '), (['--timeout', '0'], 'process 0: timeout is 0'),
    (['--lr', '1e30', '--epochs', '1'], 'process 0: '), (['--checkpoint', 'no/folder/file'], 'process 0: ')])
def test_what_it_refuses_is_said_in_a_sentence(options, said, capsys):
    with pytest.raises(SystemExit) as stopped: main(['--data', 'sample', *options])
    assert said in str(stopped.value) + capsys.readouterr().err and stopped.value.code not in (0, None)
    assert not dist.is_initialized()


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    "The weights after an undisturbed run in two processes."
    path = tmp_path_factory.mktemp('straight')/'net'
    done = run(torchrun(2, {}, '--epochs', 4, '--save', path))
    assert not done.returncode, done.stderr
    assert done.stdout.count('validation images') == 1 and done.stderr.count('epoch 4 of 4') == 1       # the first process only
    return weights(path)


def kills(n, seed):
    "A step and a rank for each of n accidents: 4 epochs of 14 batches, and a killed run goes on from its last whole epoch."
    draw, step, planned = random.Random(seed), 0, []
    for _ in range(n):
        step = draw.randrange(step//14*14, 4*14)
        planned.append([step, draw.randrange(2)])
    return planned


in_ci = pytest.mark.skipif('KILLS' not in os.environ, reason='takes minutes, and runs in CI: KILLS=1')

@pytest.mark.parametrize('seed', [0, *(pytest.param(seed, marks=in_ci) for seed in range(1, 6))])
def test_a_run_whose_workers_are_killed_at_any_step_ends_at_the_same_weights(tmp_path, straight, seed):
    n = 3 if not seed else 4
    killed = run(torchrun(2, dict(kill=kills(n, seed), log=str(tmp_path/'log')), '--epochs', 4, '--save', tmp_path/'killed',
                          '--checkpoint', tmp_path/'checkpoint', restarts=n))
    assert not killed.returncode, killed.stderr
    assert (tmp_path/'log').read_text() == n*'x' and 'lost the connection to another process' in killed.stderr
    for a, b in zip(straight, weights(tmp_path/'killed'), strict=True): assert torch.equal(a, b)


def test_two_machines_end_where_one_does(tmp_path, straight):
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    command = torchrun(1, {}, '--epochs', 4, '--save', tmp_path/'net')
    command[3:4] = ['--nnodes', '2', '--rdzv-id', 'digits', '--rdzv-backend', 'c10d', '--rdzv-endpoint', f'localhost:{port}']
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | dict(OMP_NUM_THREADS='1'))
            for _ in range(2)]
    said = [process.communicate(timeout=100) for process in both]
    assert not any(process.returncode for process in both), said
    for a, b in zip(straight, weights(tmp_path/'net'), strict=True): assert torch.equal(a, b)


def test_a_worker_that_hangs_is_named():
    done = run(torchrun(2, dict(hang=[5, 1]), '--epochs', 4, '--timeout', 3))
    assert done.returncode and 'process 0: waited 3 s for process 1, which did not answer' in done.stderr


def test_a_worker_with_other_data_is_refused_by_name(tmp_path):
    done = run(torchrun(2, dict(other=['data', 1], data=str(other_data(tmp_path))), '--epochs', 4))
    assert done.returncode and 'process 1 does not fit process 0: data.0 is' in done.stderr and 'epoch 1' not in done.stderr


def other_data(folder):
    "A copy of MNIST with ten images."
    from PIL import Image
    for split in ('training', 'testing'):
        for digit in range(10):
            for number in range(6):
                path = folder/'mnist'/split/str(digit)/f'{number}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new('L', (28, 28), digit + number).save(path)
    return folder/'mnist'


def still_there(pids):
    "Those of the processes that run after 10 seconds."
    deadline = time.time() + 10
    def alive(pid):
        try: return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
        except OSError: return False
    while (left := [pid for pid in pids if alive(pid)]) and time.time() < deadline: time.sleep(.1)
    return left


@pytest.mark.parametrize('how, to_all', [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGKILL, False)])
def test_nothing_is_left_running(tmp_path, how, to_all):
    (tmp_path/'pids').mkdir()
    command = torchrun(2, dict(tell=str(tmp_path/'pids')), '--epochs', 2000, '--checkpoint', tmp_path/'kept')
    with open(tmp_path/'said', 'w') as said:
        started = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True, env=os.environ | dict(OMP_NUM_THREADS='1'))
        while 'epoch 3 of' not in (tmp_path/'said').read_text():
            assert started.poll() is None, (tmp_path/'said').read_text()
            time.sleep(.1)
        (os.killpg if to_all else os.kill)(started.pid, how)
        started.wait(60)
    pids = [file.name for file in (tmp_path/'pids').iterdir()]
    assert len(pids) == 2 and not still_there(pids)
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith('kept')] == ['kept']


def test_a_full_disk_is_said_and_the_checkpoint_stays(tmp_path, straight):
    disk = tmp_path/'disk'
    disk.mkdir()
    if sys.platform != 'linux' or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', disk], capture_output=True).returncode:
        pytest.skip('a small disk can only be had as root on Linux')
    def go_on(what={}): return run(torchrun(2, what, '--epochs', 4, '--checkpoint', disk/'kept', '--save', disk/'net'))
    try:
        assert go_on(dict(fail=[40, 0])).returncode                # in the third epoch
        kept = (disk/'kept').read_bytes()
        with suppress(OSError), open(disk/'large', 'wb') as large:
            while True: large.write(bytes(4096))
        done = go_on()
        assert done.returncode and 'process 0: ' in done.stderr and 'No space left' in done.stderr and 'Traceback' not in done.stderr.partition('torch/distributed')[0]
        assert (disk/'kept').read_bytes() == kept and {file.name for file in disk.iterdir()} == {'kept', 'large'}
        (disk/'large').unlink()
        assert not go_on().returncode
        for a, b in zip(straight, weights(disk/'net'), strict=True): assert torch.equal(a, b)
    finally: subprocess.run(['umount', disk])


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
@pytest.mark.parametrize('net', [*recipes])
def test_on_a_gpu(tmp_path, net):
    done = run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 1, '-m', 'mnist_foundations.distributed',
                '--data', 'sample', '--net', net, '--epochs', 2, '--checkpoint', tmp_path/'kept', '--save', tmp_path/'net'])
    assert not done.returncode and 'processes: 1 (cuda)' in done.stdout, done.stderr
