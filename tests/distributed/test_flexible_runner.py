"""mmengine's FlexibleRunner and its strategies through tools/train.py, on two processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parent
CONFIG = """
custom_imports = dict(imports=['toy_images'], allow_failed_imports=False)
default_scope = 'mmpretrain'
runner_type = 'FlexibleRunner'
strategy = dict(type='{strategy}')
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[127] * 3, std=[60] * 3, num_classes=12),
    backbone=dict(
        type='mmctx.ContextualResNet', depth=18, stem_channels=8, base_channels=8,
        num_classes=12, out_type='logits'),
    head=dict(type='mmctx.ContextualClsHead'))
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(type='ToyImages'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.01))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
randomness = dict(seed=7)
"""


@pytest.mark.parametrize(
    ('strategy', 'written'),
    [('DDPStrategy', ['epoch_1.pth']),
     ('FSDPStrategy', ['epoch_1.pth/rank0.pth', 'epoch_1.pth/rank1.pth'])],
)  # fmt: skip
def test_strategies_train_on_cpus(strategy, written, repo, tmp_path):
    (tmp_path / 'toy.py').write_text(CONFIG.format(strategy=strategy))
    result = subprocess.run(
        [
            *(sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2'),
            *(repo / 'tools' / 'train.py', 'toy.py', '--launcher', 'pytorch', '--work-dir', 'run'),
        ],
        cwd=tmp_path,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{repo}:{FOLDER}'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    files = [tmp_path / 'run' / name for name in written]
    assert all(file.stat().st_size for file in files)
    if strategy == 'DDPStrategy':
        # Shards of FSDP can be read in a process group alone.
        contents = torch.load(files[0], weights_only=False)
        assert contents['meta']['iter'] == 2 and contents['state_dict']
