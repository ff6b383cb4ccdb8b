"""A run that is killed, then asked to end by a signal, then left to finish."""

import signal

from toy_training import ToyTraining


def test_killed_then_terminated_then_finished(repo, tmp_path):
    training = ToyTraining(repo, tmp_path, epochs=12)
    status, log = training.run(0.5)
    assert status == -signal.SIGKILL, log
    killed_at = training.checkpoint()['meta']['iter']
    assert 0 < killed_at < 120
    status, log = training.run(0.2, signal.SIGTERM)
    assert status == 75, log
    assert 'SIGTERM: saved iteration' in log and 'resume with --resume' in log
    saved = training.checkpoint()['meta']
    assert saved['iter'] > killed_at
    status, log = training.run()
    assert status == 0, log
    assert training.checkpoint()['meta']['iter'] == len(training.losses()) == 120
    assert {path.name for path in (tmp_path / 'run').glob('*.pth')} == {'iter_120.pth'}
