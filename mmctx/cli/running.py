"""From a config to a run that can be interrupted, checked beforehand."""

from contextlib import contextmanager
from importlib import import_module
from pickle import UnpicklingError

from mmengine.registry import MODELS, RUNNERS, init_default_scope

from mmctx import compat
from mmctx.checkpoints.fitting import check_fit
from mmctx.cli.tool import local_rank
from mmctx.compat import launch
from mmctx.engine import Interrupted, ResumableRunner
from mmctx.errors import UserError

from .failures import LastBatch, explain
from .preflight import preflight


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
    # The first process of each machine checks for all of them.
    weights = preflight(cfg, mode) if local_rank() == 0 else []
    with bad_arguments_reported():
        launch.prepare_launcher(cfg)
        own = 'runner_type' in cfg
        runner = RUNNERS.build(cfg) if own else ResumableRunner.from_cfg(cfg)
        # The runner builds its loop, with data set and loader, only when it is asked for it.
        _ = runner.train_loop if mode == 'train' else runner.test_loop
    launch.revert_sync_norms(runner.model)
    for item in weights:
        check_fit(runner.model, item)
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
    import_module(f'{cfg.default_scope}.models')
    init_default_scope(cfg.default_scope)
    with bad_arguments_reported():
        return MODELS.build(cfg.model)


@contextmanager
def bad_arguments_reported():
    """Turn what `is_bad_argument` knows, raised while modules are built, into a UserError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, FileExistsError, UnpicklingError) as error:
        if not is_bad_argument(error):
            raise
        raise UserError(error.args[0] if len(error.args) == 1 else error) from error


def is_bad_argument(error):
    """Whether building a module failed on what the config says, not on a fault of the code."""
    text = str(error)
    if isinstance(error, KeyError):
        return 'registry' in text
    return not isinstance(error, TypeError) or 'unexpected keyword argument' in text


def run(runner, mode):
    """Train or test; what is wrong with input or machine becomes a :class:`UserError`.

    Args:
        runner (Runner): From :func:`build_runner`.
        mode (str): 'train' or 'test'.

    Returns:
        nn.Module | dict: The trained model, or the metrics.

    Raises:
        UserError: If mmctx itself raised a ValueError, an image or a video cannot be read, a
            process of the run was lost, or the disk is full.
        SystemExit: If a signal asked for the end; the state is saved, and the status is 75.
    """
    try:
        return runner.train() if mode == 'train' else runner.test()
    except Interrupted as interrupted:
        launch.leave_launcher(interrupted.code)
        raise
    except (ValueError, AssertionError, RuntimeError, OSError) as error:
        reason = explain(error, runner)
        if reason is None:
            raise
        raise reason from error
