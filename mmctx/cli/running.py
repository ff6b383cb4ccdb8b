"""From a config to a run that can be interrupted, checked beforehand."""

import re
from contextlib import contextmanager
from importlib import import_module

from mmengine.registry import MODELS, RUNNERS, init_default_scope

from mmctx import compat
from mmctx.checkpoints.fitting import check_fit
from mmctx.compat import launch
from mmctx.engine import Interrupted, ResumableRunner
from mmctx.errors import UserError, recognise

from .failures import LastBatch, explain
from .preflight import Checked, preflight
from .tool import local_rank

UNKNOWN_ARGUMENT = re.compile(r"unexpected keyword argument '(\w+)'")


def run_config(cfg, mode):
    """Check, build and do a run, and leave its launcher.

    Args:
        cfg (Config): The merged config.
        mode (str): 'train' or 'test'.

    Raises:
        UserError: As :func:`build_runner` and :func:`run`.
        SystemExit: If a signal asked for the end; the state is saved, and the status is 75.
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
        UserError: If a file, a weight or an argument of a module is not usable.
    """
    compat.install_runtime()
    compat.guard_files()
    # The first process of each machine checks for all of them.
    checked = preflight(cfg, mode) if local_rank() == 0 else Checked([], {})
    with refusals_recognised(cfg):
        launch.prepare_launcher(cfg)
        own = 'runner_type' in cfg
        runner = RUNNERS.build(cfg) if own else ResumableRunner.from_cfg(cfg)
        # The runner builds its loop, with data set and loader, only when it is asked for it.
        _ = runner.train_loop if mode == 'train' else runner.test_loop
    launch.revert_sync_norms(runner.model)
    for weights in checked.weights:
        check_fit(runner.model, weights)
    if isinstance(runner, ResumableRunner):
        runner.checkpoints, runner.latest = checked.checkpoints, checked.latest
    runner.register_hook(LastBatch())
    return runner


def build_model(cfg):
    """Build a config's model alone, without its data.

    Args:
        cfg (Config): The merged config.

    Returns:
        nn.Module: The model, its weights as the constructor leaves them.

    Raises:
        UserError: If an argument of a module is not usable.
    """
    compat.install_runtime()
    compat.guard_files()
    import_module(f'{cfg.default_scope}.models')
    init_default_scope(cfg.default_scope)
    with refusals_recognised(cfg):
        return MODELS.build(cfg.model)


@contextmanager
def refusals_recognised(cfg):
    """Turn other packages' refusals of a config, raised while modules are built, into UserErrors.

    Args:
        cfg (Config): The config that the modules are built from.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        refusal = recognise(error) or unknown_argument(error, cfg)
        if refusal is None:
            raise
        raise refusal from error


def unknown_argument(error, cfg):
    """The refusal of an argument that no module takes.

    Args:
        error (Exception): Exception raised while modules were built.
        cfg (Config): The config that they are built from.

    Returns:
        UserError | None: None for another error, and for an argument that the config does not name
        and that a fault of the code must have added.
    """
    found = UNKNOWN_ARGUMENT.search(str(error)) if isinstance(error, TypeError) else None
    return UserError(error) if found and names_key(cfg.to_dict(), found[1]) else None


def names_key(config, key):
    """Whether a key stands anywhere in a config of dicts and lists."""
    if isinstance(config, dict):
        return key in config or any(names_key(value, key) for value in config.values())
    return isinstance(config, (list, tuple)) and any(names_key(item, key) for item in config)


def run(runner, mode):
    """Train or test; what is wrong with input or machine becomes a :class:`UserError`.

    Args:
        runner (Runner): Runner of :func:`build_runner`.
        mode (str): 'train' or 'test'.

    Returns:
        nn.Module | dict: The trained model, or the metrics.

    Raises:
        UserError: If mmctx refuses a batch or a setting, an image or a video cannot be read, a
            process of the run was lost, or the disk is full.
        SystemExit: If a signal asked for the end; the state is saved, and the status is 75.
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
