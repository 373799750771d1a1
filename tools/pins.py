"""Renew constraints.txt for every Python and system that the project names, or check it.

    python tools/pins.py [--add | --check] [--keep NAME ...]

Without an option every pin is renewed but those to keep; --add leaves all as they are and pins what settings.ini asks for
anew. --check fails if a pin is not to be had as a wheel, or is missing, for one of the Pythons on one of the systems.
"""
import argparse, os, re, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product

from metadata import settings
from series import ROOT, RUN
from uv import find_uv_bin

PINS = ROOT/'constraints.txt'
HEADER = '''# What make and the README's commands install: versions seen to work together on Python 3.11, which install on 3.11 to 3.14
# on Linux, macOS and Windows. Made by make pins; tools/pins.py --check tests it.
'''
SYSTEMS = 'linux', 'macos', 'windows'
KEEP = ['torch', 'torchvision']   # committed outputs and results come from this version: change it with make write
OWN = r"nvidia-|cuda-|triton==|.*== 'emscripten'"   # each build of torch pins its own of these; and what only browsers need
cfg = settings()
PYTHONS = cfg['min_python'], '3.12', '3.13', '3.14'
UV = find_uv_bin()
# uv trusts the certificates that pip and browsers trust, which is harmless everywhere; torch needs macOS 14
ENVIRONMENT = os.environ | {'UV_SYSTEM_CERTS': '1', 'MACOSX_DEPLOYMENT_TARGET': '14.0'}
wanted = [r for key, value in cfg.items() if key.endswith('requirements') for r in value.split()]


def resolve(*options):
    "The lines `name==version`, some with a marker, that uv finds for `wanted` among wheels; exits with its message if none."
    run = subprocess.run([UV, 'pip', 'compile', '-q', '--only-binary', ':all:', '--no-annotate', '--no-header', *options, '-'],
                         input='\n'.join(wanted), capture_output=True, text=True, env=ENVIRONMENT)
    if run.returncode: sys.exit(f"{' '.join(map(str, options))}\n{run.stderr}")
    return [line for line in run.stdout.splitlines() if not re.match(OWN, line)]


def name(line): return re.sub('[-_.]+', '-', re.match(r'[\w.-]+', line)[0]).lower()


def pinned(): return [line for line in PINS.read_text(encoding='utf-8').splitlines() if re.match(r'\w', line)]


def renew(keep):
    "Write `PINS`, with the pins there are now for the names in `keep`."
    kept = RUN/'kept.txt'
    RUN.mkdir(exist_ok=True)
    kept.write_text('\n'.join(line for line in pinned() if name(line) in keep), encoding='utf-8')
    lines = resolve('--universal', '--python-version', PYTHONS[0], '--fork-strategy', 'fewest', '-c', kept)
    several = [name(line) for line in lines]   # a marker stays only where a package has two versions
    lines = [line if several.count(name(line)) > 1 else line.partition(' ;')[0] for line in lines]
    PINS.write_text(HEADER + '\n'.join(lines) + '\n', encoding='utf-8')


def check(place):
    "Which packages have no pin on this Python and system."
    python, system = place
    lines = resolve('--python-version', python, '--python-platform', system, '-c', PINS)
    print(f'Python {python}, {system}: {len(lines)} wheels', flush=True)
    return {name(line) for line in lines} - {name(line) for line in pinned()}


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--add', action='store_true')
    parser.add_argument('--check', action='store_true')
    parser.add_argument('--keep', nargs='*', default=KEEP)
    args = parser.parse_args()
    if args.check:
        with ThreadPoolExecutor(4) as pool: missing = set().union(*pool.map(check, product(PYTHONS, SYSTEMS)))
        if missing: sys.exit(f'not pinned, so run tools/pins.py --add: {" ".join(sorted(missing))}')
    else: renew({name(line) for line in pinned()} if args.add else args.keep)
