"""What the switches of `tools/train.py` and `tools/test.py` change in a config."""

import logging

from mmengine.device import get_device
from mmengine.logging import print_log

from mmctx.errors import UserError
from mmctx.registry import bare_name

from .config import as_list, framework

AMP_ARGUMENTS = ('loss_scale', 'dtype', 'use_fsdp')


def set_amp(cfg, wanted):
    """Switch mixed precision on if `--amp` asks for it, off if nothing here can do it."""
    wrapper = cfg.optim_wrapper
    kind = bare_name(wrapper.setdefault('type', 'OptimWrapper'))
    available = get_device() not in ('cpu', 'mps')
    if wanted and not available:
        raise UserError('--amp needs a GPU, and PyTorch sees none here; leave it out')
    if wanted and kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp does not go with optim_wrapper.type={kind}')
    if wanted:
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    elif kind == 'AmpOptimWrapper' and not available:
        print_log(
            'no GPU: training in float32 instead of mixed precision',
            logger='current',
            level=logging.WARNING,
        )
        wrapper.type = 'OptimWrapper'
        for key in AMP_ARGUMENTS:
            wrapper.pop(key, None)


def set_training(
    cfg, amp=False, auto_scale_lr=False, resume=None, nonfinite_loss=None, cuda_graph=False
):
    """Apply `tools/train.py`'s switches.

    Args:
        cfg (Config): The merged config, changed in place.
        amp (bool): Whether to train in mixed precision. Defaults to False.
        auto_scale_lr (bool): Whether to scale the learning rate by the batch size. Defaults to
            False.
        resume (str, optional): Checkpoint to resume from, or 'auto' for the last one in the work
            dir. Defaults to None, a new run.
        nonfinite_loss (str, optional): Action of `NonFiniteLossHook`. Defaults to None, the action
            that the config names.
        cuda_graph (bool): Whether to run the backbone as a CUDA graph, by `CudaGraphHook`. Defaults
            to False.

    Raises:
        UserError: A switch does not fit the config or the machine.
    """
    set_amp(cfg, amp)
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UserError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
        cfg.auto_scale_lr.enable = True
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume
    if nonfinite_loss is not None:
        cfg.nonfinite_loss = nonfinite_loss
    if cuda_graph:
        if get_device() != 'cuda':
            raise UserError(
                '--cuda-graph needs an NVIDIA GPU, and PyTorch sees none here; leave it out'
            )
        cfg.custom_hooks = [*as_list(cfg.get('custom_hooks')), dict(type='mmctx.CudaGraphHook')]


def set_testing(cfg, checkpoint, out=None, show=False, show_dir=None, wait_time=2, tta=False):
    """Apply `tools/test.py`'s switches.

    Args:
        cfg (Config): The merged config, changed in place.
        checkpoint (str): Checkpoint to test.
        out (str, optional): Pickle file for the predictions. Defaults to None, no file.
        show (bool): Whether to show pictures in a window. Defaults to False.
        show_dir (str, optional): Folder for pictures; mmdet creates it inside the folder of this
            run in the work dir. Defaults to None, no pictures.
        wait_time (float): Time that a window stays open, in seconds. Defaults to 2.
        tta (bool): Whether to use test-time augmentation, by the config's `tta_model` and
            `tta_pipeline`; mmaction2 needs no `tta_model`. Defaults to False.

    Raises:
        UserError: A switch does not fit the config.
    """
    rules = framework(cfg)
    cfg.load_from, cfg.resume = checkpoint, False
    if out is not None:
        if not out.endswith(('.pkl', '.pickle')):
            raise UserError(f'--out must name a .pkl or .pickle file, not {out}')
        dump = dict(type=rules['dump'], out_file_path=out)
        cfg.test_evaluator = [*as_list(cfg.test_evaluator), dump]
    if show or show_dir:
        if 'visualization' not in cfg.get('default_hooks', {}):
            raise UserError('--show and --show-dir need default_hooks.visualization in the config')
        hook = cfg.default_hooks.visualization
        hook.update(rules['draw'], show=show, wait_time=wait_time)
        if show_dir:
            hook[rules['out_dir']] = show_dir
    if tta:
        # mmaction2's heads average the views of a video themselves.
        needed = [*([] if cfg.default_scope == 'mmaction' else ['tta_model']), 'tta_pipeline']
        if any(key not in cfg for key in needed):
            raise UserError(f'--tta needs {" and ".join(needed)} in the config')
        if 'tta_model' in cfg:
            cfg.model = dict(cfg.tta_model, module=cfg.model)
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
