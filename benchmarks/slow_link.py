"""Two network namespaces, which are like two machines, and between them a link as slow as one asks for.

    sudo python benchmarks/slow_link.py [--delay MS] [--rate MBIT]    # tries it: seconds for a short message and for 1 MB

Linux has `tc netem` for this, but not every kernel has it. Here each namespace gets a TUN device, and a process hands
packets from one to the other, after the time that the link would take. Needs root and /dev/net/tun; `refused` says why
it can't be had.
"""
import argparse, fcntl, os, select, signal, struct, subprocess, sys
from collections import deque
from contextlib import contextmanager
from time import perf_counter, sleep

NAMESPACES, ADDRESSES = ('mnist_a', 'mnist_b'), ('10.213.0.1', '10.213.0.2')
MTU = 9000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454ca, 1, 0x1000

def ip(*words): subprocess.run(['ip', *words], check=True, capture_output=True)

def inside(namespace, command):
    "A command that runs `command` in one of the namespaces."
    return ['ip', 'netns', 'exec', namespace, *command]

def refused():
    "Why there can be no link here, or ''."
    if sys.platform != 'linux' or os.geteuid(): return 'needs root on Linux'
    try:
        os.close(os.open('/dev/net/tun', os.O_RDWR))
        ip('netns', 'list')
    except (OSError, subprocess.CalledProcessError) as e: return f'no TUN device or no namespaces here: {e}'
    return ''

def new_device(name):
    "A TUN device; its other end is the file that is returned."
    fd = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack('16sH', name.encode(), IFF_TUN | IFF_NO_PI))
    return fd

def relay(fds, delay, rate):
    "Hand packets on for ever: each leaves when the one before it has left, takes its bits over `rate`, and arrives `delay` seconds later."
    other = dict(zip(fds, reversed(fds)))
    waiting, free = {fd: deque() for fd in fds}, dict.fromkeys(fds, 0.)
    while True:
        due = min((packets[0][0] for packets in waiting.values() if packets), default=None)
        ready, *_ = select.select(fds, [], [], None if due is None else max(0, due - perf_counter()))
        for fd in ready:
            packet, now = os.read(fd, MTU + 100), perf_counter()
            free[fd] = max(free[fd], now) + (8*len(packet)/rate if rate else 0)
            waiting[fd].append((free[fd] + delay, packet))
        for fd, packets in waiting.items():
            while packets and packets[0][0] <= perf_counter(): os.write(other[fd], packets.popleft()[1])

def remove():
    for namespace in NAMESPACES: subprocess.run(['ip', 'netns', 'del', namespace], capture_output=True)

@contextmanager
def slow_link(delay, rate):
    "Two namespaces for the time of the block: `delay` in seconds each way, `rate` in bits a second, 0 for no limit."
    remove()
    fds = []
    for i, (namespace, address) in enumerate(zip(NAMESPACES, ADDRESSES)):
        name = f'mnist_tun{i}'
        fds.append(new_device(name))
        ip('netns', 'add', namespace)
        ip('link', 'set', name, 'netns', namespace)
        ip('-n', namespace, 'addr', 'add', f'{address}/24', 'dev', name)
        for words in ((name, 'mtu', str(MTU)), (name, 'up'), ('lo', 'up')): ip('-n', namespace, 'link', 'set', *words)
    child = os.fork()
    if not child:
        try: relay(fds, delay, rate)
        finally: os._exit(1)
    for fd in fds: os.close(fd)
    try: yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        remove()

ANSWER = '''import socket
with socket.create_server(("10.213.0.2", 9999)) as server:
    connection = server.accept()[0]
    while size := int.from_bytes(connection.recv(4), "big"):
        left = size
        while left: left -= len(connection.recv(left))
        connection.sendall(b"x")'''
ASK = '''import socket, time
connection = socket.create_connection(("10.213.0.2", 9999))
for size in (1, 1_000_000):
    times = []
    for _ in range(6):
        began = time.perf_counter()
        connection.sendall(size.to_bytes(4, "big") + bytes(size))
        connection.recv(1)
        times.append(time.perf_counter() - began)
    print(f"{size:9,} bytes there and an answer back: {sorted(times)[2]*1e3:.1f} ms")'''

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--delay', type=float, default=5, help='milliseconds each way')
    parser.add_argument('--rate', type=float, default=100, help='megabits a second; 0 for no limit')
    given = parser.parse_args()
    if why := refused(): sys.exit(why)
    with slow_link(given.delay/1e3, given.rate*1e6):
        answering = subprocess.Popen(inside(NAMESPACES[1], [sys.executable, '-c', ANSWER]))
        sleep(1)
        subprocess.run(inside(NAMESPACES[0], [sys.executable, '-c', ASK]), check=True)
        answering.kill()
