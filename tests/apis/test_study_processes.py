"""The study's trainings side by side: how they end, fail, are interrupted and go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config
from test_study import training, write_log

from mmctx.apis.study import processes
from mmctx.apis.study.plan import plan_runs
from mmctx.apis.study.processes import train_all
from mmctx.apis.study.training import Job, is_in_last_validation
from mmctx.errors import UserError

FOREVER = float('inf')
STEPS = 4


class Attempt(NamedTuple):
    """What a training does: log steps at once, and end after some polls, or when waited for."""

    status: int = 0
    polls: float = 1
    steps: tuple[int, ...] = ()
    says: str = ''
    checkpoint: str = ''
    ends_when_waited_for: bool = False
    status_if_terminated: int = -signal.SIGTERM


class Trainings:
    """Stands in for `subprocess.Popen`: plays each run's attempts, one a start."""

    def __init__(self, attempts):
        self.attempts = {name: list(those) for name, those in attempts.items()}
        self.started, self.resumed, self.terminated, self.waits = [], [], [], []

    def __call__(self, command, stdout, start_new_session, **options):
        assert start_new_session
        folder = Path(command[command.index('--work-dir') + 1])
        self.started.append(folder.name)
        self.resumed.append('--resume' in command)
        attempt = self.attempts[folder.name].pop(0)
        number = len(self.started)
        if attempt.steps:
            lines = [dict(training(i, 1.0), epoch=1, time=float(number)) for i in attempt.steps]
            write_log(folder, f'20260101_{number:06d}', *lines)
        if attempt.checkpoint:
            save(folder / attempt.checkpoint)
        stdout.write(attempt.says)
        return FakeProcess(self, folder.name, attempt)


class FakeProcess:
    """One attempt under way."""

    def __init__(self, trainings, name, attempt):
        self.trainings, self.name, self.attempt = trainings, name, attempt
        self.polls_left, self.returncode = attempt.polls, None

    def poll(self):
        self.polls_left -= 1
        if self.returncode is None and self.polls_left <= 0:
            self.returncode = self.attempt.status
        return self.returncode

    def terminate(self):
        if self.returncode is None:
            self.trainings.terminated.append(self.name)
            self.returncode = self.attempt.status_if_terminated

    def wait(self, timeout=None):
        self.trainings.waits.append((self.name, timeout))
        if self.returncode is None:
            if not self.attempt.ends_when_waited_for:
                assert timeout is not None
                raise subprocess.TimeoutExpired('train', timeout)
            self.returncode = self.attempt.status
        return self.returncode


def save(path):
    torch.save(dict(meta={}, message_hub={}), path)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Plays attempts of rows' trainings with `train_all`."""

    def play(attempts, number=1, minutes=FOREVER, finish=lambda job: 'found', **train_cfg):
        cfg = Config(dict(train_cfg=train_cfg or dict(max_iters=STEPS)))
        runs = plan_runs(['classification'], list(attempts), 1)
        runs.sort(key=lambda run: list(attempts).index(run.row.key))
        jobs = [Job(run, cfg, 'recipe', tmp_path / run.row.key) for run in runs]
        play.trainings = Trainings(attempts)
        monkeypatch.setattr(processes.subprocess, 'Popen', play.trainings)
        return train_all(jobs, 'cpu', [], number, minutes, finish, 1.0)

    monkeypatch.setattr(processes, 'POLL_SECONDS', 0)
    return play


def finish_in_turn(*answers):
    """Give these answers; raise KeyboardInterrupt where it is one."""
    answers = iter(answers)

    def finish(job):
        answer = next(answers)
        if answer is KeyboardInterrupt:
            raise answer
        return answer

    return finish


def test_all_done(study, capsys):
    assert study({'a1': [Attempt()], 'a2': [Attempt(polls=3)], 'a3': [Attempt()]}, 2)
    assert study.trainings.started == ['a1', 'a2', 'a3']
    assert study.trainings.resumed == [False] * 3
    assert '[3/3] a2-seed0: found' in capsys.readouterr().out


def test_goes_on_from_a_checkpoint(study, tmp_path):
    (tmp_path / 'a1').mkdir()
    save(tmp_path / 'a1' / 'iter_2.pth')
    assert study({'a1': [Attempt()], 'a2': [Attempt()]})
    assert study.trainings.resumed == [True, False]
    assert (tmp_path / 'a1' / 'iter_2.pth').exists()


@pytest.mark.parametrize(
    'train_cfg, checkpoint',
    [(dict(max_iters=STEPS), f'iter_{STEPS}.pth'), (dict(max_epochs=2), 'epoch_2.pth')],
)
def test_final_checkpoint_is_not_gone_on_from(study, tmp_path, train_cfg, checkpoint):
    (tmp_path / 'a1').mkdir()
    save(tmp_path / 'a1' / checkpoint)
    assert study({'a1': [Attempt()]}, **train_cfg)
    assert study.trainings.resumed == [False]
    assert not (tmp_path / 'a1' / checkpoint).exists()


def test_without_its_last_validation_a_run_is_trained_anew_once(study, capsys):
    final = Attempt(checkpoint=f'iter_{STEPS}.pth')
    attempts = {'a1': [final, final], 'a2': [Attempt()]}
    assert study(attempts, finish=finish_in_turn(None, 'found', 'found'))
    assert study.trainings.started == ['a1', 'a1', 'a2']
    assert study.trainings.resumed == [False] * 3
    out = capsys.readouterr().out
    assert out.count('a1-seed0: ended without its last validation; it is trained anew') == 1
    assert '[2/2] a2-seed0' in out

    with pytest.raises(UserError, match='1 of 2 runs failed: a1-seed0: ended twice without its'):
        study(attempts, finish=finish_in_turn(None, None, 'found'))
    assert study.trainings.started == ['a1', 'a1', 'a2']
    assert '[1/2] a2-seed0' in capsys.readouterr().out


def test_deadline_waits_for_a_last_validation(study, capsys):
    attempts = {
        'a1': [Attempt(polls=FOREVER, steps=(2, STEPS), ends_when_waited_for=True)],
        'a2': [Attempt(polls=FOREVER, steps=(2,))],
    }
    assert not study(attempts, 2, minutes=1e-9)
    assert study.trainings.terminated == ['a2']
    out = capsys.readouterr().out
    assert '[1/2] a1-seed0: found' in out and 'a2-seed0: found' not in out
    assert study({'a1': attempts['a1']}, minutes=1e-9), 'nothing was left to do'


def test_deadline_does_not_wait_for_ever(study, monkeypatch, capsys):
    monkeypatch.setattr(processes, 'LAST_VALIDATION_SECONDS', 7)
    attempts = {'a1': [Attempt(polls=FOREVER, checkpoint=f'iter_{STEPS}.pth')]}
    assert not study(attempts, minutes=1e-9)
    (name, seconds), *_ = study.trainings.waits
    assert name == 'a1' and 6 < seconds <= 7
    assert study.trainings.terminated == ['a1']
    assert 'found' not in capsys.readouterr().out


def test_training_that_ends_well_though_terminated_is_done(study):
    # In its last step, where a run no longer heeds the signal.
    assert study({'a1': [Attempt(polls=FOREVER, status_if_terminated=0)]}, minutes=1e-9)


def test_second_interruption_ends_a_last_validation(study, monkeypatch):
    def wait(process, timeout=None):
        if timeout is not None:
            raise KeyboardInterrupt

    monkeypatch.setattr(FakeProcess, 'wait', wait)
    with pytest.raises(KeyboardInterrupt):
        study({'a1': [Attempt(polls=FOREVER, steps=(STEPS,))]}, minutes=1e-9)
    assert study.trainings.terminated == ['a1']


def test_interruption_while_a_run_is_finished_does_not_lose_it(study, capsys):
    with pytest.raises(KeyboardInterrupt):
        study({'a1': [Attempt()]}, finish=finish_in_turn(KeyboardInterrupt, 'found'))
    assert '[1/1] a1-seed0: found' in capsys.readouterr().out


def test_interruption_waits_for_a_last_validation(study, monkeypatch, capsys):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, 'time', Clock(interrupt))
    attempts = {
        'a1': [Attempt(polls=FOREVER, steps=(STEPS,), ends_when_waited_for=True)],
        'a2': [Attempt(polls=FOREVER)],
    }
    with pytest.raises(KeyboardInterrupt):
        study(attempts, 2)
    assert study.trainings.terminated == ['a2']
    assert '[1/2] a1-seed0: found' in capsys.readouterr().out


class Clock:
    """The module `time` with another `sleep`."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, sleep):
        self.sleep = sleep


def test_last_validation_of_a_run_by_epochs(tmp_path):
    (run,) = plan_runs(['detection'], ['vanilla'], 1)
    job = Job(run, Config(dict(train_cfg=dict(max_epochs=2))), '', tmp_path)
    # The logger need not log an epoch's very last iteration.
    write_log(tmp_path, '20260101_000000', dict(training(190, 1.0), epoch=2))
    save(tmp_path / 'epoch_1.pth')
    assert not is_in_last_validation(job)
    save(tmp_path / 'epoch_2.pth')
    assert is_in_last_validation(job)


def test_interrupted_training_goes_on(study, capsys):
    first = Attempt(75, steps=(1,), checkpoint='interrupted.pth')
    assert study({'a1': [first, Attempt(75, steps=(2,)), Attempt()], 'a2': [Attempt()]})
    assert study.trainings.started == ['a1', 'a1', 'a1', 'a2']
    assert study.trainings.resumed == [False, True, True, False]
    assert capsys.readouterr().out.count('a1-seed0: interrupted; it goes on') == 2


def test_training_interrupted_twice_without_progress_has_failed(study):
    first = Attempt(75, steps=(1,), checkpoint='interrupted.pth')
    with pytest.raises(UserError, match='1 of 2 runs failed: a1-seed0: interrupted twice without'):
        study({'a1': [first, Attempt(75), Attempt(75)], 'a2': [Attempt()]})
    assert study.trainings.started == ['a1', 'a1', 'a1', 'a2']


def test_what_all_will_meet_is_raised_at_once(study):
    attempts = {
        'a1': [Attempt(polls=FOREVER)],
        'a2': [Attempt(2, says='reading\nerror: no data\n\n')],
        'a3': [Attempt()],
    }
    with pytest.raises(UserError, match=r'^a2-seed0: error: no data$'):
        study(attempts, 2)
    assert study.trainings.started == ['a1', 'a2']
    assert study.trainings.terminated == ['a1']


@pytest.mark.parametrize(
    'attempts',
    [
        {'a1': [Attempt()], 'a2': [Attempt(2, polls=2)]},
        {'a1': [Attempt(polls=3, steps=(1,))], 'a2': [Attempt(2)]},
        {'a2': [Attempt(2, steps=(1,))], 'a1': [Attempt(polls=2)]},
        {'a3': [Attempt(1, steps=(1,))], 'a2': [Attempt(2, polls=2)], 'a1': [Attempt()]},
    ],
    ids=['another finished', 'another has advanced', 'it has diverged itself', 'another crashed'],
)
def test_what_one_has_met_keeps_no_other_from_training(study, attempts, capsys):
    last = [Attempt(polls=4)]
    with pytest.raises(UserError, match=r'runs failed: .*a2-seed0: no output'):
        study({**attempts, 'a5': last}, 2)
    assert study.trainings.started[-1] == 'a5' and not study.trainings.terminated
    out = capsys.readouterr().out
    assert 'a1-seed0: found' in out and 'a5-seed0: found' in out


def test_run_that_diverges_again_keeps_no_other_from_training(study, tmp_path):
    (tmp_path / 'a1').mkdir()
    save(tmp_path / 'a1' / 'iter_1.pth')
    write_log(tmp_path / 'a1', '20250101_000000', training(1, 1.0), training(2, 1.0))
    with pytest.raises(UserError, match='1 of 2 runs failed: a1'):
        study({'a1': [Attempt(2, steps=(2,))], 'a2': [Attempt()]})
    assert study.trainings.resumed == [True, False]


def test_failures_are_said_at_once_and_at_the_deadline(study, capsys):
    said = []

    def finish(job):
        said.append(capsys.readouterr().err)
        raise UserError('no figures')

    attempts = {
        'a1': [Attempt(1, says='Killed')],
        'a2': [Attempt()],
        'a3': [Attempt(polls=FOREVER)],
    }
    with pytest.raises(UserError) as raised:
        study(attempts, 3, minutes=1e-9, finish=finish)
    assert str(raised.value) == '2 of 3 runs failed: a1-seed0: Killed; a2-seed0: no figures'
    assert len(said) == 1 and said[0].startswith('a1-seed0: Killed (')
    assert capsys.readouterr().err.startswith('a2-seed0: no figures (')
    assert study.trainings.terminated == ['a3']


CHILD = """
import signal, sys, time
from pathlib import Path
def record(number, frame):
    with open(sys.argv[1] + '/signals', 'a') as file:
        file.write(signal.Signals(number).name + ' ')
    if number == signal.SIGTERM:
        sys.exit(75)
signal.signal(signal.SIGINT, record)
signal.signal(signal.SIGTERM, record)
Path(sys.argv[1], 'ready').touch()
for _ in range(600):
    time.sleep(0.1)
"""
PARENT = """
import sys
from pathlib import Path
from mmengine.config import Config
from mmctx.apis.study import processes, training
from mmctx.apis.study.plan import plan_runs
child, folder = sys.argv[1:]
training.train_command = lambda job, *_: [sys.executable, '-c', child, str(job.folder)]
cfg = Config(dict(train_cfg=dict(max_iters=4)))
jobs = [
    training.Job(run, cfg, '', Path(folder, run.row.key))
    for run in plan_runs(['classification'], ['a1', 'a2'], 1)
]
processes.train_all(jobs, 'cpu', [], 2, float('inf'), lambda job: 'found', 1.0)
"""


def test_ctrl_c_lets_real_trainings_save(tmp_path):
    folders = [tmp_path / 'a1', tmp_path / 'a2']
    parent = subprocess.Popen(
        [sys.executable, '-c', PARENT, CHILD, tmp_path],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 120
        while not all((folder / 'ready').exists() for folder in folders):
            assert parent.poll() is None and time.monotonic() < until, parent.communicate()[1]
            time.sleep(0.1)
        os.killpg(parent.pid, signal.SIGINT)
        _, err = parent.communicate(timeout=60)
    finally:
        parent.kill()
    assert err.strip().endswith('KeyboardInterrupt')
    assert [(folder / 'signals').read_text() for folder in folders] == ['SIGTERM '] * 2
