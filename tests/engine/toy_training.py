"""Run `tools/train.py` on a toy, and kill it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from mmctx.checkpoints.latest import latest_checkpoint
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
        self.command = [sys.executable, str(repo / 'tools' / 'train.py'), 'toy.py', '--resume']
        self.folder = folder
        self.env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{repo}:{TOY}'}

    def run(self, seconds=None, number=signal.SIGKILL, work_dir='run'):
        """Train to the end, or send a signal some seconds after training has begun."""
        process = subprocess.Popen(
            [*self.command, '--work-dir', work_dir],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        log = []
        if seconds is not None:
            for line in process.stdout:
                log.append(line)
                if STARTED in line:
                    break
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
        log.append(process.communicate(timeout=200)[0])
        return process.returncode, ''.join(log)

    def checkpoint(self, work_dir='run'):
        """The last checkpoint of a run."""
        path, _ = latest_checkpoint(str(self.folder / work_dir))
        with history_allowed():
            return torch.load(path, weights_only=True)

    def losses(self, work_dir='run'):
        """Each loss of a run."""
        history = self.checkpoint(work_dir)['message_hub']['log_scalars']['train/loss']
        return history.data[0].tolist()
