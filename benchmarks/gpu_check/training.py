"""Trainings of twenty iterations through `tools/train.py`, resumed halfway."""

import math
import os
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path
from pprint import pformat
from statistics import mean

from mmengine.config import Config

from benchmarks.logs import read_logs
from mmctx.compat.config_paths import config_dir

from .data import root_of
from .sizes import CONVNEXT, Place, narrow

# Iterations of an epoch; a training has two epochs.
ITERATIONS = 10
COMPARED = 5
CONFIGS = {
    'mask-rcnn': 'mask_rcnn_ctx_convnext_t_coco.py',
    'tsm': 'tsm_ctx_resnet50_k400.py',
    'classifier': 'ctx_convnext_t_in1k.py',
    'distributed': 'ctx_resnet50_in1k.py',
}
# With it a loss decreases within a few iterations, from scratch and without a warm-up.
LEARNING_RATES = {'mask-rcnn': 1e-4, 'tsm': 5e-3, 'classifier': 1e-3, 'distributed': 0.01}
TOOLS = config_dir().resolve().parent / 'tools'


def changes(name: str, place: Place) -> dict:
    """Make the changes with which a config learns the check's data in twenty iterations.

    Args:
        name (str): Name of the training, one of `CONFIGS`.
        place (Place): Device and folder of the check.

    Returns:
        dict: Variables of a config that inherits from it.
    """
    batch = {'mask-rcnn': 2, 'tsm': 2, 'classifier': 4, 'distributed': 4}[name]
    if not place.small:
        batch *= {'mask-rcnn': 2, 'tsm': 4, 'classifier': 8, 'distributed': 8}[name]
    dataset = dict(indices=ITERATIONS * batch)
    model = {}
    if name == 'mask-rcnn':
        model, dataset = _mask_rcnn(place, dataset)
    elif name == 'tsm':
        root, _ = root_of('K400_ROOT', place)
        dataset.update(data_root=str(root))
        if place.small:
            frames = dict(num_segments=4)
            model = dict(backbone=frames, cls_head=dict(frames, in_channels=256))
            dataset.update(pipeline=_small_clips(4))
    else:
        root, _ = root_of('IMAGENET_ROOT', place)
        dataset.update(data_root=str(root))
        # With mixed images and labels the decrease of the loss would not show in twenty iterations.
        model = dict(train_cfg=None)
        if place.small:
            dataset.update(pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')])
    if place.small:
        backbone = Config.fromfile(config_dir() / CONFIGS[name]).model.backbone
        model['backbone'] = {**narrow(backbone), **model.get('backbone', {})}
        if 'arch' in model['backbone']:
            # The config uses one of the paper's.
            model['backbone']['arch'] = dict(model['backbone']['arch'], _delete_=True)
    workers = dict(num_workers=0, persistent_workers=False) if place.small else dict(num_workers=4)
    return dict(
        pretrained=None,
        model=model,
        train_dataloader=dict(batch_size=batch, dataset=dataset, **workers),
        train_cfg=dict(max_epochs=1),
        optim_wrapper=dict(optimizer=dict(lr=LEARNING_RATES[name])),
        param_scheduler=None,
        default_hooks=dict(
            logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=1, save_best=None)
        ),
        log_processor=dict(window_size=1),
        randomness=dict(seed=0),
        **dict.fromkeys(('val_cfg', 'val_dataloader', 'val_evaluator')),
        **dict.fromkeys(('test_cfg', 'test_dataloader', 'test_evaluator')),
    )


def _mask_rcnn(place, dataset):
    root, real = root_of('COCO_ROOT', place)
    dataset.update(data_root=str(root))
    model = {}
    if not real:
        heads = {name: dict(num_classes=8) for name in ('bbox_head', 'mask_head')}
        model = dict(roi_head=heads)
        dataset.update(
            type='mmctx.ShapesDataset',
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='train/'),
        )
    if place.small:
        model['roi_head']['bbox_head'].update(fc_out_channels=64)
        model['roi_head']['mask_head'].update(num_convs=1, conv_out_channels=32)
        model |= dict(
            neck=dict(in_channels=CONVNEXT['arch']['channels']),
            train_cfg=dict(rpn_proposal=dict(max_per_img=20), rcnn=dict(sampler=dict(num=16))),
        )
        dataset.update(
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                dict(type='Resize', scale=(64, 64), keep_ratio=True),
                dict(type='PackDetInputs'),
            ]
        )
    return model, dataset


def _small_clips(frames):
    return [
        dict(type='mmctx.PyAVInit'),
        dict(type='SampleFrames', clip_len=1, num_clips=frames),
        dict(type='mmctx.PyAVDecode'),
        dict(type='FormatShape', input_format='NCHW'),
        dict(type='PackActionInputs'),
    ]


def write_config(name: str, place: Place) -> Path:
    """Write the config that inherits from one of `CONFIGS`.

    Args:
        name (str): Name of the training.
        place (Place): Device and folder of the check.

    Returns:
        Path: Path of the config file.
    """
    file = place.out / f'{name}.py'
    lines = [f'_base_ = {str(config_dir().resolve() / CONFIGS[name])!r}']
    lines += [f'{key} = {pformat(value)}' for key, value in changes(name, place).items()]
    file.write_text('\n'.join(lines) + '\n')
    return file


def losses_of(work_dir: Path) -> dict[int, float]:
    """Read the loss of each iteration of all runs in a work dir, by iteration, counted from 1."""
    lines = chain.from_iterable(read_logs(work_dir))
    return {line['step']: line['loss'] for line in lines if 'loss' in line}


def judge(losses: dict[int, float], iterations: int, falling: bool = True) -> str:
    """Find what is wrong with the losses of a training.

    Args:
        losses (dict[int, float]): Loss by iteration.
        iterations (int): Smallest number of iterations that is right.
        falling (bool): Whether the last five losses have to be below the first five on average.
            Defaults to True.

    Returns:
        str: Description in one line; '' if nothing is wrong.
    """
    values = [losses[step] for step in sorted(losses)]
    if sorted(losses) != list(range(1, len(losses) + 1)) or len(losses) < iterations:
        return f'iterations {sorted(losses)}, expected 1 to {iterations} or more'
    if not all(map(math.isfinite, values)):
        return f'a loss is not finite: {values}'
    first, last = mean(values[:COMPARED]), mean(values[-COMPARED:])
    if falling and not last < first:
        return f'the loss does not fall: first five {first:.4g}, last five {last:.4g} on average'
    return ''


def _run(command, **env):
    print('$', *command, flush=True)
    subprocess.run([*map(str, command)], check=True, env={**os.environ, **env})


def train(name: str, place: Place) -> dict:
    """Train for an epoch, resume for a second one, and check the losses.

    Args:
        name (str): Name of the training, one of `CONFIGS`.
        place (Place): Device and folder of the check; on a GPU the training is in mixed precision.

    Returns:
        dict: Number of iterations, first and last loss.

    Raises:
        RuntimeError: The losses are not as they should be.
        subprocess.CalledProcessError: A training has failed.
    """
    work_dir = place.out / 'work_dirs' / name
    command = [sys.executable, TOOLS / 'train.py', write_config(name, place)]
    command += ['--work-dir', work_dir, *([] if place.small else ['--amp'])]
    _run(command)
    before = losses_of(work_dir)
    _run([*command, '--resume', '--cfg-options', 'train_cfg.max_epochs=2'])
    losses = losses_of(work_dir)
    resumed = min((step for step in losses if step not in before), default=0)
    wrong = judge(losses, 2 * ITERATIONS)
    if not wrong and (resumed != len(before) + 1 or any(losses[s] != before[s] for s in before)):
        wrong = f'--resume started at iteration {resumed}, not {len(before) + 1}'
    if wrong:
        raise RuntimeError(wrong)
    return dict(iterations=len(losses), first_loss=losses[1], last_loss=losses[len(losses)])


def train_distributed(place: Place) -> dict:
    """Train for an epoch with `tools/dist_train.sh CONFIG 1`, and by a CUDA graph on a GPU.

    Args:
        place (Place): Device and folder of the check; a GPU uses NCCL, a CPU gloo.

    Returns:
        dict: Number of iterations and the last loss.

    Raises:
        RuntimeError: The losses are not finite, or another back end was used.
        subprocess.CalledProcessError: The training failed.
    """
    name = 'distributed'
    work_dir = place.out / 'work_dirs' / name
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    command = ['bash', TOOLS / 'dist_train.sh', write_config(name, place), '1']
    command += ['--work-dir', work_dir, *([] if place.small else ['--amp', '--cuda-graph'])]
    _run(command, PYTHON=sys.executable, PORT=str(port))
    losses = losses_of(work_dir)
    wrong = judge(losses, ITERATIONS, falling=False)
    # The run writes the config that it has started with.
    backend = Config.fromfile(work_dir / f'{name}.py').env_cfg.dist_cfg.backend
    if not wrong and backend != ('gloo' if place.small else 'nccl'):
        wrong = f'it ran with {backend}'
    if wrong:
        raise RuntimeError(wrong)
    return dict(iterations=len(losses), last_loss=losses[len(losses)], backend=backend)
