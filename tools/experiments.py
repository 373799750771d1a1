"""Rebuild the committed results of long experiments, or run the benchmarks.

    python tools/experiments.py [--bench]

A script benchmarks/NAME.py is an experiment if mnist_foundations/results/NAME.csv is there: it writes that file, whose
rows say their seed, version, threads and seconds. A result is stale if its version is not the one in settings.ini.
--bench runs the other scripts, which only print.
"""
import csv, subprocess, sys
from configparser import ConfigParser

from series import ROOT

config = ConfigParser(delimiters=['='])
config.read(ROOT/'settings.ini', encoding='utf-8')
version = config['DEFAULT']['version']


def result_of(script): return ROOT/'mnist_foundations'/'results'/f'{script.stem}.csv'


def stale(script):
    "Whether the result of `script` was made by another version."
    with open(result_of(script), newline='', encoding='utf-8') as f:
        return {row['version'] for row in csv.DictReader(f)} != {version}


if __name__ == '__main__':
    scripts = sorted((ROOT/'benchmarks').glob('*.py'))
    experiments = [s for s in scripts if result_of(s).exists()]
    if '--bench' in sys.argv: chosen = [s for s in scripts if s not in experiments]
    else:
        chosen = [s for s in experiments if stale(s)]
        print(f'{len(experiments)} results, {len(chosen)} of them stale', flush=True)
    for script in chosen:
        print(f'benchmarks/{script.name}', flush=True)
        subprocess.run([sys.executable, script], check=True)
