"""Run `tools/train.py` on a toy, and kill it."""

import os
import signal
import tempfile
from pathlib import Path

import torch
from forked import ENVIRONMENT, Command

from mmctx.checkpoints.latest import find_latest
from mmctx.compat.checkpoint import history_allowed

TOY = Path(__file__).resolve().parents[1] / 'engine'
CONFIG = """
custom_imports = dict(imports=['toy_run'], allow_failed_imports=False)
default_scope = 'mmpretrain'
model = dict(type='EngineToyModel')
train_dataloader = dict(
    batch_size=4,
    num_workers={workers},
    dataset=dict(type='EnginePoints', length=40, seconds=0.002),
    sampler=dict(type='DefaultSampler', shuffle=True))
train_cfg = dict(by_epoch=True, max_epochs={epochs})
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.01))
param_scheduler = dict(type='CosineAnnealingLR', by_epoch=True, T_max={epochs})
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=1))
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
randomness = dict(seed=7)
"""
STARTED = 'Checkpoints will be saved to'


class ToyTraining:
    """Runs `tools/train.py` on a toy's config, in a folder."""

    def __init__(self, repo, folder, epochs, workers=0):
        (folder / 'toy.py').write_text(CONFIG.format(epochs=epochs, workers=workers))
        self.command = [repo / 'tools' / 'train.py', 'toy.py', '--resume']
        self.folder = folder
        self.env = {**ENVIRONMENT, 'PYTHONPATH': f'{repo}:{TOY}'}

    def run(self, seconds=None, number=signal.SIGKILL, work_dir='run'):
        """Train to the end, or send a signal some seconds after training has begun."""
        printed = Path(tempfile.mkdtemp(dir=self.folder))
        arguments = [*self.command, '--work-dir', work_dir]
        command = Command(arguments, self.folder, self.env, printed)
        if seconds is not None:
            command.wait_for(STARTED)
            if command.wait(seconds) is None:
                os.kill(command.pid, number)
        done = command.completed(200)
        return done.returncode, done.stdout + done.stderr

    def checkpoint(self, work_dir='run'):
        """The last checkpoint of a run."""
        path = find_latest(str(self.folder / work_dir)).path
        with history_allowed():
            return torch.load(path, weights_only=True)

    def losses(self, work_dir='run'):
        """Each loss of a run."""
        history = self.checkpoint(work_dir)['message_hub']['log_scalars']['train/loss']
        return history.data[0].tolist()
