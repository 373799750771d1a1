"""The command of chapter 14, in which workers meet accidents; tests/test_distributed.py starts it by torchrun.

    torchrun ... tests/a_worker_dies.py WHAT [options of the command]

WHAT is what happens, in JSON: {'kill': [[step, rank], ...], 'log': FILE} kills that rank at that step, one after the other; FILE
counts them over the restarts. {'hang': [step, rank]} stops it for ever, {'fail': ...} raises, {'other': [name, rank]} starts it with
another version, other data or other classes, and {'tell': FOLDER} has each worker write its process number there.
"""
import json, os, signal, sys, time
from pathlib import Path

from mnist_foundations import distributed
from mnist_foundations.training import Hook


class Accident(Hook):
    def __init__(self, what): self._what = what
    def after_batch(self, run):
        here = [run.step, int(os.environ.get('RANK', 0))]
        if 'kill' in self._what:
            log = Path(self._what['log'])
            planned = self._what['kill'][len(log.read_text()) if log.exists() else 0:]
            if planned and planned[0] == here:
                with open(log, 'a') as f: f.write('x')
                os.kill(os.getpid(), signal.SIGKILL)
        if self._what.get('hang') == here: time.sleep(1000)
        if self._what.get('fail') == here: raise ValueError('an accident')


def main(what, *options):
    what, rank = json.loads(what), int(os.environ.get('RANK', 0))
    name, other_rank = what.get('other', ['', -1])
    if rank == other_rank and name == 'version': distributed.__version__ = '0.0.1'
    if rank == other_rank and name == 'classes': distributed.TwoLayerNet.__init__.__defaults__ = 500, 0., 784, 9, None
    if rank == other_rank and name == 'data': options = [*options, '--data', what['data']]
    if 'tell' in what: (Path(what['tell'])/str(os.getpid())).touch()
    distributed.main(options, hooks=[Accident(what)])


if __name__ == '__main__': main(*sys.argv[1:])
