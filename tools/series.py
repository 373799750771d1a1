"""Run the chapters in order, without a browser, and print what they measured.

    python tools/series.py [--data full|sample|FOLDER|FILE] [--all] [--write] [--check] [NOTEBOOK ...]

Without a name it runs Part I, with --all every chapter, two at a time with a thread each. The last chapter, which takes
longest, comes first, and gets all threads when the others are done. Executed copies go to _run/. --write puts them back
into nbs/, which is how the committed outputs are made, and runs one at a time, since chapters print seconds. --check
fails if an accuracy differs from the committed one by more than three standard errors (see `tolerance`).
"""
import argparse, itertools, math, os, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
from fastprogress.fastprogress import progress_bar
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
NBS, RUN = ROOT/'nbs', ROOT/'_run'
ALL_THREADS = f'import torch; torch.set_num_threads({os.cpu_count()})'
RESULTS = 'application/vnd.mnist-foundations.results+json'
LOTTERY = .6         # the published recipe of chapter 03 has no reproducible accuracy, but it stays below this
chapters = sorted(NBS.glob('[0-9][0-9]_*.ipynb'))
part_one = [path for path in chapters if path.stem < '04']
kernels = []         # the processes of those that run


def results(nb):
    "The result rows that the notebook `nb` left in its outputs."
    return [row for cell in nb.cells for out in cell.get('outputs', [])
            for row in out.get('data', {}).get(RESULTS, [])]


def joined(outputs):
    "The outputs of a cell, with what it printed in one piece where the kernel sent it in several."
    whole = []
    for out in outputs:
        if whole and out.output_type == 'stream' == whole[-1].output_type and out.name == whole[-1].name:
            whole[-1].text += out.text
        else: whole.append(out)
    return whole


def execute(nb, after_cell=lambda: None, is_alone=lambda: False):
    """Run every cell of the notebook `nb` in a kernel of its own, in nbs/, and call `after_cell` after each. It gets all
    threads once `is_alone` says that no other notebook runs beside it."""
    with tempfile.TemporaryDirectory() as folder:
        config = Config() if os.name == 'nt' else Config(KernelManager=dict(transport='ipc', ip=f'{folder}/kernel'))
        client = NotebookClient(nb, timeout=3600, resources={'metadata': {'path': str(NBS)}}, config=config,
                                store_widget_state=False)
        with client.setup_kernel():
            kernels.append(client.km.provisioner.process)
            alone = False
            for i, cell in enumerate(nb.cells):
                if not alone and is_alone():
                    client.execute_cell(nbformat.v4.new_code_cell(ALL_THREADS), i)
                    alone = True
                client.execute_cell(cell, i)
                if cell.cell_type == 'code': cell.outputs = joined(cell.outputs)
                after_cell()
    return nb


def run(path, write, after_cell, is_alone):
    "Execute the notebook at `path`, keep the copy, and return it with the seconds that it took."
    nb, began = nbformat.read(path, as_version=4), time.time()
    try: execute(nb, after_cell, is_alone)
    except CellExecutionError as e: sys.exit(f'{path.name} stopped:\n{e}')
    finally: nbformat.write(nb, RUN/path.name)
    if write: nbformat.write(nb, path)
    return nb, time.time() - began


def cells_bar(notebooks):
    "A function to call after each cell: in a terminal it moves a bar over the cells of all notebooks."
    if not sys.stdout.isatty(): return lambda: None
    bar = progress_bar(range(sum(len(nb.cells) for nb in notebooks)))
    bar.update(0)
    done = itertools.count(1)
    return lambda: bar.update(next(done))


def table(rows):
    "Result rows as lines of text, columns aligned; '' where a row has no figure."
    head = ['chapter', 'model', 'measured', 'accuracy', 'seconds']
    cells = [head] + [[r['chapter'], r['model'], r['measured'],
                       '' if r['accuracy'] is None else f"{r['accuracy']:.4f}",
                       '' if r['seconds'] is None else f"{r['seconds']:.1f}"] for r in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return '\n'.join('  '.join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in cells)


def tolerance(row):
    "Three standard errors of the accuracy in `row`, as of a share of the images that it was measured on."
    images = 2_000 if row['measured'].startswith('3 or 7') else 10_000      # threes and sevens are a fifth of the ten digits
    p = row['accuracy']
    return 3*math.sqrt(p*(1 - p)/images)


def differing(rows, committed):
    "Lines that name each row of `rows` whose accuracy is not that of the same row in `committed`."
    for row, was in zip(rows, committed, strict=True):
        if row['accuracy'] is None: continue
        if 'recipe' in row['model']:
            if row['accuracy'] >= LOTTERY:
                yield f"{row['chapter']}, {row['model']}: {row['accuracy']:.4f}, and it has to stay below {LOTTERY}"
        elif abs(row['accuracy'] - was['accuracy']) > tolerance(was):
            yield (f"{row['chapter']}, {row['model']}: {row['accuracy']:.4f}, and {was['accuracy']:.4f} is committed, "
                   f'with three standard errors of {tolerance(was):.4f}')


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument('--data', help="'full', 'sample', or a copy of your own; default: as the reader has it")
    args.add_argument('--all', action='store_true', help='every chapter, not only Part I')
    args.add_argument('--write', action='store_true', help='write the executed notebooks back into nbs/')
    args.add_argument('--check', action='store_true', help='fail if an accuracy differs from the committed one')
    args.add_argument('notebooks', nargs='*', type=Path, help='default: the chapters of Part I')
    args = args.parse_args()
    if args.data:
        named = args.data in ('full', 'sample')
        os.environ['MNIST_FOUNDATIONS_DATA'] = args.data if named else str(Path(args.data).expanduser().resolve())

    RUN.mkdir(exist_ok=True)
    paths, start = args.notebooks or (chapters if args.all else part_one), time.time()
    committed = {path: nbformat.read(path, as_version=4) for path in paths}
    bar, executed = cells_bar(committed.values()), {}
    at_a_time = 1 if args.write or len(paths) == 1 else 2
    if at_a_time > 1: os.environ.setdefault('OMP_NUM_THREADS', '1')     # threads of two kernels slow each other down
    def is_alone(): return at_a_time > 1 and len(executed) == len(paths) - 1

    with ThreadPoolExecutor(at_a_time) as pool:
        jobs = {pool.submit(run, path, args.write, bar, is_alone): path
                for path in (paths if args.write else reversed(paths))}
        try:
            for job in as_completed(jobs):
                executed[jobs[job]], seconds = job.result()
                print(f'\n{jobs[job].stem}, {seconds:.0f} seconds')
                for row in results(executed[jobs[job]]):
                    print(f"  {row['model']}, {row['measured']}"
                          + ('' if row['accuracy'] is None else f": {row['accuracy']:.2%}"), flush=True)
        except BaseException:      # a chapter failed, or Ctrl-C: the other one doesn't go on
            pool.shutdown(wait=False, cancel_futures=True)
            for kernel in kernels: kernel.kill()
            raise
    rows = [row for path in paths for row in results(executed[path])]
    if rows: print(f'\n{table(rows)}')
    print(f'\n{time.time() - start:.0f} seconds in all; the executed notebooks are in {RUN.name}/')
    if not args.notebooks and not args.all: print('This was Part I. `make all` runs the rest as well.')
    if args.check:
        before = [row for nb in committed.values() for row in results(nb)]
        if lines := list(differing(rows, before)): sys.exit('\n'.join(lines))


if __name__ == '__main__': main()
