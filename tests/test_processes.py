"The appendix on processes."
import os, signal, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import pytest
import torch
from torch import distributed as dist, tensor

from mnist_foundations import processes
from mnist_foundations.processes import *

cloudpickle.register_pickle_by_value(sys.modules[__name__])      # the workers can't import this file
pytestmark = pytest.mark.xdist_group('processes')                # one after the other: each of them starts several


def alive(pid):
    "Whether a process still runs; one that has ended and was not yet looked after does not."
    try: return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError: return False


@pytest.fixture(scope='module')
def workers():
    workers = Workers(3, timeout=4)
    yield workers
    workers.close()


# Who is who.

def test_alone_there_is_one():
    assert (rank(), world_size(), of_all_ranks('x')) == (0, 1, ['x'])


@pytest.mark.parametrize('n', [1, 2, 3])
def test_each_has_a_rank_and_hears_from_all(workers, n):
    assert workers(n, lambda: (rank(), world_size(), of_all_ranks(rank()**2))) == [(r, n, [r**2 for r in range(n)]) for r in range(n)]


# A group.

def test_a_group_of_one_and_its_end():
    with process_group():
        assert dist.get_backend() == 'gloo' and dist.get_world_size() == 1
        total = tensor([3.])
        dist.all_reduce(total)
        assert total == 3
    assert not dist.is_initialized()
    with pytest.raises(RuntimeError, match='something else'):
        with process_group(): raise RuntimeError('something else')
    assert not dist.is_initialized()


@pytest.mark.skipif(sys.platform != 'linux', reason='threads are counted in /proc')
def test_a_group_leaves_no_threads():        # they could abort a process that ends, while they let go of a tensor
    program = '''
import os, torch
from mnist_foundations.processes import process_group
with process_group():
    torch.optim.SGD([torch.ones(1)], .1)     # the first one imports much, also functions that keep the group of that moment
print(len(os.listdir('/proc/self/task')))'''
    ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, env=os.environ | dict(OMP_NUM_THREADS='1'))
    assert ended.stdout == '1\n', ended.stderr


@pytest.mark.parametrize('timeout', [0, -1, float('nan'), 'long'])
def test_timeout_is_a_positive_number(timeout):
    with pytest.raises((TypeError, ValueError), match='timeout'):
        with process_group(timeout): pass
    with pytest.raises((TypeError, ValueError), match='timeout'): Workers(1, timeout)


@pytest.mark.parametrize('size', [1, 2, 5])
def test_a_corner_of_the_store_is_new_although_there_were_others_before(size):
    store, corners = dist.HashStore(), []
    for attempt in range(3):
        with ThreadPoolExecutor(size) as pool: those = [*pool.map(lambda number: processes._new_corner(store, number, size), range(size))]
        assert not any(corner.check(['address']) for corner in those)
        those[0].set('address', str(attempt))
        assert all(corner.get('address') == str(attempt).encode() for corner in those)


def test_a_corner_waits_for_the_late():
    store, late = dist.HashStore(), []
    def one(number):
        if number == 2: time.sleep(.5)
        late.append(number)
        return processes._new_corner(store, number, 3)
    for key in range(3): store.set(f'seen by {key}', 'a b c')
    store.set('names', 'a b c')
    with ThreadPoolExecutor(3) as pool: list(pool.map(one, range(3)))
    assert late[-1] == 2


# Workers.

def test_what_is_sent_comes_from_here_and_what_returns_is_by_rank(workers):
    factor = 7
    def times(x, y): return factor*x + y + rank()
    assert workers(3, times, 2, 1) == [15, 16, 17]


def test_processes_are_started_once(workers):
    pids = {pid for _ in range(5) for pid in workers(3, os.getpid)}
    assert len(pids) == 3 and os.getpid() not in pids


def test_they_share_the_threads_of_one(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '2')
    workers = Workers(3)
    for n, threads in ((3, 1), (1, 2), (2, 1)): assert set(workers(n, torch.get_num_threads)) == {threads}
    workers.close()


def test_what_they_say_is_printed_and_progress_only_once(workers, capsys):
    def speak():
        print('here', rank())
        print('progress', file=sys.stderr)
    workers(2, speak)
    assert capsys.readouterr().out == 'process 0: here 0\nprocess 0: progress\nprocess 1: here 1\n'


@pytest.mark.parametrize('n, message', [(0, 'n is 0'), (1.5, 'n is 1.5'), (4, 'n is 4; expected at most 3')])
def test_as_many_as_there_are(workers, n, message):
    with pytest.raises(ValueError, match=message): workers(n, rank)


def add_up(): return dist.all_reduce(torch.ones(1))

def raises():
    if rank() == 1: raise KeyError('of rank 1')
    add_up()

def hangs():
    if rank() == 1: time.sleep(100)
    add_up()

def is_killed():
    if rank() == 1: os._exit(9)
    add_up()


@pytest.mark.parametrize('accident, error, message', [
    (raises, KeyError, 'of rank 1'), (hangs, TimeoutError, 'waited 4 s for process 1, which did not answer'),
    (is_killed, ChildProcessError, 'a worker was killed')])
def test_an_accident_is_told_and_the_next_call_works(workers, accident, error, message):
    pids = workers(3, os.getpid)
    with pytest.raises(error, match=message): workers(3, accident)
    assert workers(3, rank) == [0, 1, 2]
    if accident is not raises:
        deadline = time.time() + 10
        while any(map(alive, pids)) and time.time() < deadline: time.sleep(.1)
        assert not any(map(alive, pids))


def test_an_interrupt_ends_the_workers():
    signal.signal(signal.SIGINT, signal.default_int_handler)         # a shell's background job would ignore it
    workers = Workers(2, timeout=60)
    pids = workers(2, os.getpid)
    threading.Timer(1, lambda: os.kill(os.getpid(), 2)).start()
    with pytest.raises(KeyboardInterrupt): workers(2, time.sleep, 100)
    deadline = time.time() + 10
    while any(map(alive, pids)) and time.time() < deadline: time.sleep(.1)
    assert not any(map(alive, pids)) and workers.pool is None


def test_workers_end_with_a_killed_parent():
    program = 'import os, sys; from mnist_foundations.processes import *; print(*Workers(2)(2, os.getpid), flush=True); sys.stdin.read()'
    with subprocess.Popen([sys.executable, '-c', program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        pids = parent.stdout.readline().split()
        assert len(pids) == 2 and all(map(alive, pids))
        parent.kill()
    deadline = time.time() + 10
    while any(map(alive, pids)) and time.time() < deadline: time.sleep(.1)
    assert not any(map(alive, pids))


def test_close_ends_them_and_may_be_called_twice():
    workers = Workers(1)
    workers.close()
    pid, = workers(1, os.getpid)
    workers.close()
    workers.close()
    assert not alive(pid)
