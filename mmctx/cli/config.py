"""From a config file and command line switches to a config that can run.

One way for the three frameworks; where their own tools differ, `FRAMEWORKS` says how.
"""

import difflib
import inspect
import logging
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmctx.errors import UserError

FRAMEWORKS = {
    'mmdet': dict(
        draw=dict(draw=True), out_dir='test_out_dir', dump='DumpDetResults', loader=dict()
    ),
    'mmpretrain': dict(
        draw=dict(enable=True),
        out_dir='out_dir',
        dump='DumpResults',
        loader=dict(persistent_workers=True, collate_fn=dict(type='default_collate')),
    ),
    'mmaction': dict(draw=dict(enable=True), out_dir='out_dir', dump='DumpResults', loader=dict()),
}
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
AMP_ARGUMENTS = ('loss_scale', 'dtype', 'use_fsdp')
RUNNER_KEYS = set(inspect.signature(Runner.__init__).parameters) | {
    'auto_scale_lr', 'model_wrapper_cfg', 'sync_bn', 'find_unused_parameters', 'compile',
    'activation_checkpointing', 'efficient_conv_bn_eval', 'runner_type', 'tta_model',
    'tta_pipeline', 'pretrained',
}  # fmt: skip


def load_config(path, options=None, work_dir=None, launcher='none'):
    """Read a config file and merge the command line into it.

    Args:
        path (str): The config file.
        options (dict, optional): `--cfg-options`, by dotted key. Defaults to None.
        work_dir (str, optional): Where the run writes to. Defaults to the config's own, else
            `work_dirs/<name of the config>` beneath the current folder.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'. Defaults to 'none'.

    Returns:
        Config: The merged config.

    Raises:
        UserError: If the file or an option is not usable.
    """
    options = options or {}
    if not Path(path).is_file():
        raise UserError(f'config file {path} does not exist')
    try:
        cfg = Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:
        if raised_in_mmctx(error):
            raise
        # A config is a program, so anything can go wrong in it.
        raise UserError(f'cannot read config {path}: {type(error).__name__}: {error}') from error
    if 'model' not in cfg:
        raise UserError(f'{path} is not the config of a run: it has no `model`')
    for key in {key.split('.')[0] for key in options} - RUNNER_KEYS - set(cfg.keys()):
        near = difflib.get_close_matches(key, [*cfg.keys(), *RUNNER_KEYS], n=1, cutoff=0.8)
        if near:
            raise UserError(f'--cfg-options: there is no {key!r} in {path}; is {near[0]!r} meant?')
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError) as error:
        raise UserError(f'--cfg-options do not fit {path}: {error}') from error
    apply_pretrained(cfg, options)
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(path).stem)
    set_loaders(cfg)
    return cfg


def raised_in_mmctx(error):
    """Whether an error comes from a module of this package, which a config may import."""
    traceback = error.__traceback__
    while traceback.tb_next:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_globals.get('__name__', '').startswith('mmctx.')


def apply_pretrained(cfg, options):
    """Let `pretrained` take effect although the config is already expanded.

    Args:
        cfg (Config): The merged config; its `model.backbone.init_cfg`, or the backbone's own
            `pretrained` where it has one as mmaction2's have, is changed in place. A `pretrained`
            of None, in the file or among the options, trains from scratch.
        options (dict): `--cfg-options`; `pretrained=FILE` sets the backbone's weights.

    Raises:
        UserError: If the config's variable `pretrained` and the backbone name different files,
            as in a config that inherits from another and replaces one of the two.
    """
    backbone = cfg.model.get('backbone')
    if not isinstance(backbone, dict) or 'pretrained' not in cfg:
        return
    init = backbone.get('init_cfg')
    names_weights = 'pretrained' in backbone
    if names_weights and (cfg.pretrained is None or 'pretrained' in options):
        backbone.pretrained = cfg.pretrained
        if cfg.pretrained is None and backbone.type.split('.')[-1] == 'ResNetTSM':
            # It would look for weights all the same.
            backbone.pretrained2d = False
    elif cfg.pretrained is None:
        # PyTorch's own initialization: with the zero biases of ConvNeXt's every pixel of padding is
        # constant at first, and LayerNorm's gradients there explode.
        backbone.init_cfg = None
    elif 'pretrained' not in options:
        stated = init.get('checkpoint') if isinstance(init, dict) else None
        if names_weights:
            stated = backbone.pretrained
        overridden = any(key.startswith('model.backbone') for key in options)
        if stated and not overridden and cfg.pretrained != stated:
            key = 'pretrained' if names_weights else 'init_cfg'
            raise UserError(
                f"the config's `pretrained` is {cfg.pretrained} but its model.backbone.{key} "
                f'loads {stated}; set both, or pass --cfg-options pretrained=FILE'
            )
    elif isinstance(init, dict) and init.get('type') == 'Pretrained':
        init.checkpoint = cfg.pretrained
    else:
        backbone.init_cfg = dict(type='Pretrained', checkpoint=cfg.pretrained, prefix='backbone.')


def framework(cfg):
    """The entry of `FRAMEWORKS` for a config's `default_scope`.

    Raises:
        UserError: If the scope is of none of the three frameworks.
    """
    scope = cfg.get('default_scope')
    if scope not in FRAMEWORKS:
        raise UserError(
            f'the config has default_scope={scope!r}; this tool serves {", ".join(FRAMEWORKS)}'
        )
    return FRAMEWORKS[scope]


def set_loaders(cfg):
    """Fill in the framework's defaults for data loaders, as far as this machine allows them."""
    for name in LOADERS:
        if cfg.get(name):
            loader = {**framework(cfg)['loader'], **cfg[name]}
            if not loader.get('num_workers'):
                loader['persistent_workers'] = False
            loader.setdefault('pin_memory', torch.cuda.is_available())
            cfg[name] = loader


def set_amp(cfg, wanted):
    """Switch mixed precision on, or off where this machine has no accelerator for it.

    Args:
        cfg (Config): The merged config, changed in place.
        wanted (bool): Whether `--amp` was given.

    Raises:
        UserError: If it was given without an accelerator, or the optimizer wrapper is a special
            one.
    """
    wrapper = cfg.optim_wrapper
    kind = wrapper.setdefault('type', 'OptimWrapper')
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


def set_training(cfg, amp=False, auto_scale_lr=False, resume=None):
    """Apply `tools/train.py`'s switches.

    Args:
        cfg (Config): The merged config, changed in place.
        amp (bool): Train in mixed precision. Defaults to False.
        auto_scale_lr (bool): Scale the learning rate by batch size. Defaults to False.
        resume (str, optional): A checkpoint, or 'auto' for the last one in the work dir.

    Raises:
        UserError: If a switch does not go with the config or the machine.
    """
    set_amp(cfg, amp)
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UserError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
        cfg.auto_scale_lr.enable = True
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume


def set_testing(cfg, checkpoint, out=None, show=False, show_dir=None, wait_time=2, tta=False):
    """Apply `tools/test.py`'s switches.

    Args:
        cfg (Config): The merged config, changed in place.
        checkpoint (str): Weights to test.
        out (str, optional): Pickle file for the predictions. Defaults to None.
        show (bool): Show pictures in a window. Defaults to False.
        show_dir (str, optional): Folder for pictures; mmdet puts it beneath the work dir's folder
            of this run. Defaults to None.
        wait_time (float): Seconds that a window stays. Defaults to 2.
        tta (bool): Test-time augmentation as the config's `tta_model` and `tta_pipeline` state it;
            mmaction2 needs no `tta_model`. Defaults to False.

    Raises:
        UserError: If a switch does not go with the config.
    """
    rules = framework(cfg)
    cfg.load_from, cfg.resume = checkpoint, False
    if out is not None:
        if not out.endswith(('.pkl', '.pickle')):
            raise UserError(f'--out must name a .pkl or .pickle file, not {out}')
        metrics = cfg.test_evaluator
        metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
        cfg.test_evaluator = [*metrics, dict(type=rules['dump'], out_file_path=out)]
    if show or show_dir:
        if 'visualization' not in cfg.get('default_hooks', {}):
            raise UserError('--show and --show-dir need default_hooks.visualization in the config')
        hook = cfg.default_hooks.visualization
        hook.update(rules['draw'], show=show, wait_time=wait_time)
        if show_dir:
            hook[rules['out_dir']] = show_dir
    if tta:
        # The heads of mmaction2 average the views of a video themselves.
        needed = [*([] if cfg.default_scope == 'mmaction' else ['tta_model']), 'tta_pipeline']
        if any(key not in cfg for key in needed):
            raise UserError(f'--tta needs {" and ".join(needed)} in the config')
        if 'tta_model' in cfg:
            cfg.model = dict(cfg.tta_model, module=cfg.model)
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
