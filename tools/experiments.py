"""Rebuild the committed results of long experiments, or run the benchmarks.

    python tools/experiments.py [--bench]

A script benchmarks/NAME.py is an experiment if it writes mnist_foundations/results/NAME.csv. Its rows say their seed,
version, threads and seconds; a row that is there is not run again. A result that another version than settings.ini's
made is stale, and starts anew. --bench runs the scripts that only print.
"""
import csv, subprocess, sys

from metadata import settings
from series import ROOT

version = settings()['version']


def result_of(script): return ROOT/'mnist_foundations'/'results'/f'{script.stem}.csv'


def stale(result):
    "Whether rows of `result` were made by another version."
    with open(result, newline='', encoding='utf-8') as f:
        return any(row['version'] != version for row in csv.DictReader(f))


if __name__ == '__main__':
    bench = '--bench' in sys.argv
    for script in sorted((ROOT/'benchmarks').glob('*.py')):
        experiment, result = ".csv'" in script.read_text(encoding='utf-8'), result_of(script)
        if experiment == bench: continue
        print(f'benchmarks/{script.name}', flush=True)
        if experiment and result.exists() and stale(result): result.unlink()
        subprocess.run([sys.executable, script], check=True)
