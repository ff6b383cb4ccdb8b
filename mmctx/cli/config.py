"""From a config file and `--cfg-options` to the config of a run.

All three frameworks are treated alike, except for the differences that `FRAMEWORKS` lists.
"""

import inspect
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmctx.errors import UserError
from mmctx.registry import bare_name

from .blame import frames_of, is_in
from .unread_options import check_options

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
READ_KEYS = set(inspect.signature(Runner.__init__).parameters) | {
    'auto_scale_lr', 'model_wrapper_cfg', 'sync_bn', 'find_unused_parameters', 'compile',
    'activation_checkpointing', 'efficient_conv_bn_eval', 'runner_type', 'tta_model',
    'tta_pipeline', 'pretrained', 'pretrained_hint', 'nonfinite_loss',
}  # fmt: skip


def as_list(value):
    """Make a list of a setting that may be a single value, a sequence or empty."""
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []


def loads_weights(init):
    """Whether an `init_cfg` loads a file of weights; mmengine's class is `PretrainedInit`."""
    return bare_name(init.get('type') or '') in ('Pretrained', 'PretrainedInit')


def load_config(path, options=None, work_dir=None, launcher='none'):
    """Read a config file and merge the command line into it.

    Args:
        path (str): Path of the config file.
        options (dict, optional): Values of `--cfg-options`, by dotted key. Defaults to None, no
            options.
        work_dir (str, optional): Folder that the run writes to. Defaults to None, the folder that
            the config names or else `work_dirs/<name of the config>`.
        launcher (str): Launcher of the run: 'none', 'pytorch', 'slurm' or 'mpi'. Defaults to
            'none'.

    Returns:
        Config: The merged config.

    Raises:
        UserError: The file or an option is not usable.
    """
    options = options or {}
    if not Path(path).is_file():
        raise UserError(f'config file {path} does not exist')
    try:
        cfg = Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:
        # A config may import this package.
        if is_in(frames_of(error)[-1], 'mmctx.'):
            raise
        # A config is a program, so anything can go wrong in it.
        raise UserError(f'cannot read config {path}: {type(error).__name__}: {error}') from error
    if 'model' not in cfg:
        raise UserError(f'{path} is not the config of a run: it has no `model`')
    before = cfg.to_dict()
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError) as error:
        raise UserError(f'--cfg-options do not fit {path}: {error}') from error
    check_options(before, cfg.to_dict(), options, READ_KEYS, path)
    apply_pretrained(cfg, options)
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(path).stem)
    set_loaders(cfg)
    return cfg


def apply_pretrained(cfg, options):
    """Apply `pretrained` to the backbone, although the config has already been evaluated.

    Args:
        cfg (Config): The merged config, changed in place: its `model.backbone.init_cfg` or, as in
            mmaction2's backbones, `model.backbone.pretrained`. If `pretrained` is None, in the file
            or among the options, training starts from scratch.
        options (dict): Values of `--cfg-options`; `pretrained=FILE` sets the backbone's weights.

    Raises:
        UserError: The config's variable `pretrained` and the backbone name different files, as in a
            config that inherits from another one and replaces one of the two.
    """
    backbone = cfg.model.get('backbone')
    if not isinstance(backbone, dict) or 'pretrained' not in cfg:
        return
    init = backbone.get('init_cfg')
    names_weights = 'pretrained' in backbone
    if names_weights and (cfg.pretrained is None or 'pretrained' in options):
        backbone.pretrained = cfg.pretrained
        if cfg.pretrained is None and bare_name(backbone.type) == 'ResNetTSM':
            # Otherwise it would still look for weights.
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
    elif isinstance(init, dict) and loads_weights(init):
        init.checkpoint = cfg.pretrained
    else:
        backbone.init_cfg = dict(type='Pretrained', checkpoint=cfg.pretrained, prefix='backbone.')


def framework(cfg):
    """Get the entry of `FRAMEWORKS` for a config's `default_scope`.

    Raises:
        UserError: The scope is not that of one of the three frameworks.
    """
    scope = cfg.get('default_scope')
    if scope not in FRAMEWORKS:
        raise UserError(
            f'the config has default_scope={scope!r}; this tool serves {", ".join(FRAMEWORKS)}'
        )
    return FRAMEWORKS[scope]


def set_loaders(cfg):
    """Fill in the framework's defaults for data loaders where this machine supports them."""
    for name in LOADERS:
        if cfg.get(name):
            loader = {**framework(cfg)['loader'], **cfg[name]}
            if not loader.get('num_workers'):
                loader['persistent_workers'] = False
            loader.setdefault('pin_memory', torch.cuda.is_available())
            cfg[name] = loader
