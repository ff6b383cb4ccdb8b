"""Twenty kills, and one process of two that gets a signal, a kill or a loss that is no number."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'engine'))

from toy_training import STARTED, ToyTraining

pytestmark = pytest.mark.slow


def test_twenty_kills_at_random_moments(repo, tmp_path):
    """Every iteration saves, so that many of the kills fall into the writing of a checkpoint."""
    training = ToyTraining(repo, tmp_path, epochs=120, workers=1)
    moments = random.Random(0)
    reached = []
    for _ in range(20):
        status, log = training.run(moments.uniform(0, 2))
        assert status == -signal.SIGKILL, log
        saved = any((tmp_path / 'run').glob('*.pth'))
        reached.append(training.checkpoint()['meta']['iter'] if saved else 0)
    print('\niterations at the kills:', *reached)
    assert reached == sorted(reached) and reached[-1] > 0
    status, log = training.run()
    assert status == 0, log
    assert training.checkpoint()['meta']['iter'] == 1200
    status, log = training.run(work_dir='whole')
    assert status == 0, log
    assert training.losses() == training.losses('whole')
    assert len(training.losses()) == 1200


class TwoProcesses:
    """The toy's training under torchrun, with the processes' numbers on the system."""

    def __init__(self, repo, folder, *arguments, epochs=30):
        training = ToyTraining(repo, folder, epochs)
        launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
        command = [sys.executable, *launch, *training.command, '--launcher', 'pytorch']
        self.process = subprocess.Popen(
            [*command, '--work-dir', 'run', *arguments],
            cwd=folder,
            env=training.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.training = training
        self.log = ''

    def wait_for(self, pattern):
        for line in self.process.stdout:
            self.log += line
            if re.search(pattern, line):
                return
        pytest.fail(self.log)

    def workers(self):
        listed = subprocess.run(
            ['ps', '-o', 'pid=,args=', '--ppid', str(self.process.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line for line in listed.stdout.splitlines() if 'train.py' in line]
        return sorted(int(line.split()[0]) for line in lines)

    def end(self, seconds=120):
        start = time.monotonic()
        self.log += self.process.communicate(timeout=seconds)[0]
        print(f'\nended after {time.monotonic() - start:.0f} s with {self.process.returncode}')
        return self.process.returncode


@pytest.fixture
def two(repo, tmp_path):
    started = []

    def start(*arguments, **options):
        started.append(TwoProcesses(repo, tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for run in started:
        run.process.kill()


def test_a_signal_to_one_of_two_processes_ends_both_and_saves(two, tmp_path):
    run = two()
    run.wait_for(STARTED)
    time.sleep(1)
    os.kill(run.workers()[1], signal.SIGUSR1)
    assert run.end() != 0
    assert 'SIGUSR1: saved iteration' in run.log
    saved = run.training.checkpoint()['meta']['iter']
    assert (tmp_path / 'run' / 'interrupted.pth').is_file()
    resumed = two()
    assert resumed.end() == 0, resumed.log
    losses = run.training.losses()
    assert 0 < saved < len(losses) == 150
    (tmp_path / 'run').rename(tmp_path / 'cut')
    whole = two()
    assert whole.end() == 0, whole.log
    assert run.training.losses() == losses


def test_one_killed_process_ends_both(two):
    run = two()
    run.wait_for(STARTED)
    time.sleep(1)
    os.kill(run.workers()[0], signal.SIGKILL)
    assert run.end(60) != 0
    assert 'Signal 9 (SIGKILL)' in run.log
    assert re.search(r'error: process 1 of 2 lost another one', run.log), run.log


IN_THE_OTHER = ('--cfg-options', 'model.nan_at=[1,7]')


def test_a_batch_that_is_bad_in_one_of_two_processes_is_left_out_in_both(two):
    run = two('--nonfinite-loss', 'skip', *IN_THE_OTHER, epochs=4)
    assert run.end() == 0, run.log
    assert 'the loss is nan at iteration 7 (epoch 2, batch 2) in process 1: skipped' in run.log
    assert '1 batches without a finite loss were skipped' in run.log
    assert len(run.training.losses()) == 20
    weights = run.training.checkpoint()['state_dict']
    assert all(weight.isfinite().all() for weight in weights.values())


def test_a_bad_loss_in_one_of_two_processes_stops_both(two):
    run = two(*IN_THE_OTHER, epochs=4)
    assert run.end(60) != 0
    assert 'error: the loss is nan at iteration 7 (epoch 2, batch 2) in process 1' in run.log
    assert run.training.checkpoint()['meta']['iter'] == 6
