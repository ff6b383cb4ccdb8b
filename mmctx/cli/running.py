"""From a config to a run that is checked beforehand and can be interrupted."""

from importlib import import_module

import torch.nn as nn
from mmengine.registry import MODELS, RUNNERS, init_default_scope
from mmengine.runner import FlexibleRunner, Runner

from mmctx import compat
from mmctx.checkpoints.fitting import check_fit
from mmctx.compat import launch
from mmctx.engine import Interrupted, ResumableRunner

from .agreement import check_agreement
from .blame import upstream_errors_recognised
from .building import build_parts
from .failures import LastBatch, explain
from .heads import check_heads
from .preflight import Checked, check_contents, preflight
from .tool import local_rank


def run_config(cfg, mode):
    """Check, build and execute a run, and leave its launcher.

    Args:
        cfg (Config): The merged config.
        mode (str): 'train' or 'test'.

    Raises:
        UserError: :func:`build_runner` or :func:`run` refuses the run.
        SystemExit: A signal interrupted the run; its state is saved, and the status is 75.
    """
    run(build_runner(cfg, mode), mode)
    launch.leave_launcher()


def build_runner(cfg, mode):
    """Check the files that a config names, build its runner, and compare weights with the model.

    Args:
        cfg (Config): The merged config.
        mode (str): 'train' or 'test'.

    Returns:
        Runner: Ready to train or test.

    Raises:
        UserError: A file, a weight or an argument of a module is not usable.
    """
    compat.install_runtime()
    compat.guard_files()
    # The first process of each machine checks for all of them; if it refuses, the launcher ends the
    # others.
    checked = preflight(cfg, mode) if local_rank() == 0 else Checked([], {})
    with upstream_errors_recognised(cfg):
        launch.prepare_launcher(cfg)
        names_runner = 'runner_type' in cfg
        runner = RUNNERS.build(cfg) if names_runner else ResumableRunner.from_cfg(cfg)
        if isinstance(runner, FlexibleRunner):
            build_model_early(runner)
        if isinstance(runner.model, nn.Module):
            launch.revert_sync_norms(runner.model)
            check_heads(runner.model)
            for weights in checked.weights:
                check_fit(runner.model, weights)
        # Reading the data takes longest, so whatever can be built without them comes first.
        if isinstance(runner, Runner):
            build_parts(runner, mode)
        check_contents(checked)
        # The runner builds its loops, with data set and loader, only on first access.
        _ = runner.train_loop if mode == 'train' else runner.test_loop
        if mode == 'train' and isinstance(runner, Runner) and runner._val_loop is not None:
            _ = runner.val_loop
    if isinstance(runner, Runner):
        check_agreement(runner, mode, checked)
    if isinstance(runner, ResumableRunner):
        # So that a checkpoint is read once.
        runner.checkpoints, runner.latest = checked.checkpoints, checked.latest
    runner.register_hook(LastBatch())
    return runner


def build_model_early(runner):
    """Build the model of a FlexibleRunner, which its strategy would build when the run starts.

    It stays a config if the strategy has `skip_init_weights`, because such a strategy builds it
    without memory for weights.
    """
    if isinstance(runner.model, dict) and not getattr(runner.strategy, 'skip_init_weights', False):
        runner.model = MODELS.build(runner.model)
        launch.prepare_sharding(runner.model, runner.strategy)


def build_model(cfg):
    """Build a config's model alone, without its data.

    Args:
        cfg (Config): The merged config.

    Returns:
        nn.Module: The model, with the weights that the constructor gave it.

    Raises:
        UserError: An argument of a module is not usable.
    """
    compat.install_runtime()
    compat.guard_files()
    import_module(f'{cfg.default_scope}.models')
    init_default_scope(cfg.default_scope)
    model = cfg.model.copy()
    if cfg.get('data_preprocessor') is not None:
        # mmpretrain's configs have it beside the model, where only mmengine's runner finds it.
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with upstream_errors_recognised(cfg):
        model = MODELS.build(model)
    check_heads(model)
    return model


def run(runner, mode):
    """Train or test; an error of the input or the machine becomes a :class:`UserError`.

    Args:
        runner (Runner): Runner of :func:`build_runner`.
        mode (str): 'train' or 'test'.

    Returns:
        nn.Module | dict: The trained model, or the metrics.

    Raises:
        UserError: mmctx refuses a batch or a setting, an image or a video cannot be read, a process
            of the run was lost, or the disk is full.
        SystemExit: A signal interrupted the run; its state is saved, and the status is 75.
    """
    try:
        return runner.train() if mode == 'train' else runner.test()
    except Interrupted as interrupted:
        launch.leave_launcher(interrupted.code)
        raise
    except Exception as error:
        refusal = explain(error, runner)
        if refusal is None or refusal is error:
            raise
        raise refusal from error
