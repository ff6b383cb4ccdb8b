"""A tiny training whose losses depend on every piece of state that a resumed run must restore."""

import random
import time

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch.utils.data import Dataset


@MODELS.register_module()
class EngineToyModel(BaseModel):
    """Dropout, batch norm and NumPy's generator in the forward pass.

    `nan_at` is a process and the number of its training iteration whose loss is no number.
    """

    def __init__(self, nan_at=None, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.nan_at = nan_at
        self.iterations = 0
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 8),
            torch.nn.BatchNorm1d(8),
            torch.nn.Dropout(),
            torch.nn.Linear(8, 1),
        )

    def forward(self, inputs, mode='tensor'):
        outputs = self.layers(inputs)
        if mode == 'loss':
            self.iterations += 1
            loss = (outputs - np.random.uniform()).square().mean()  # noqa: NPY002
            spoilt = self.nan_at and (get_rank(), self.iterations) == tuple(self.nan_at)
            return {'loss': loss * float('nan') if spoilt else loss}
        return list(outputs)


@DATASETS.register_module()
class EnginePoints(Dataset):
    """Each sample bears numbers of all three generators; one index may misbehave."""

    def __init__(self, length=26, on_index=None, seconds=0):
        self.length = length
        self.seconds = seconds
        self.on_index = on_index or {}

    def get_data_info(self, index):
        return dict(img_path=f'/data/{index}.jpg')

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.on_index.get(index, lambda: None)()
        time.sleep(self.seconds)
        drawn = np.random.rand()  # noqa: NPY002
        values = [index, random.random(), drawn, torch.rand(()).item()]
        return {'inputs': torch.tensor(values)}


@METRICS.register_module()
class EngineRisingMetric(BaseMetric):
    """Better at each validation."""

    validations = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        self.validations += 1
        return {'acc': self.validations}


def toy_config(work_dir, **changes):
    cfg = Config(
        dict(
            model=dict(type='EngineToyModel'),
            work_dir=str(work_dir),
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                dataset=dict(type='EnginePoints'),
                sampler=dict(type='DefaultSampler', shuffle=True),
                collate_fn=dict(type='default_collate'),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=3),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01), clip_grad=dict(max_norm=1.0)),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5),
                dict(type='CosineAnnealingLR', by_epoch=True, T_max=3),
            ],
            default_hooks=dict(logger=dict(type='LoggerHook', interval=100)),
            custom_hooks=[dict(type='EMAHook', momentum=0.1, update_buffers=True)],
            randomness=dict(seed=7),
            log_level='ERROR',
        )
    )
    for key, value in changes.items():
        if '.' in key:
            cfg.merge_from_dict({key: value})
        else:
            cfg[key] = value
    return cfg


def losses(runner):
    """Every loss of a run, before and after it was resumed."""
    return runner.message_hub.get_scalar('train/loss').data[0].tolist()
