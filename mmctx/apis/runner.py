"""From a config to a run of mmengine's Runner, checked beforehand."""

import re
from contextlib import contextmanager
from importlib import import_module

from mmengine.hooks import Hook
from mmengine.registry import MODELS, RUNNERS, init_default_scope
from mmengine.runner import Runner

from mmctx import compat
from mmctx.compat import launch

from .checkpoints import check_fit
from .errors import UserError, local_rank
from .preflight import preflight

# What mmcv and mmctx's data sets say of an image that cannot be read, also from a loader's worker.
BROKEN_IMAGE = re.compile(r'failed to load image: .+|\S+ is not a readable image')


class LastBatch(Hook):
    """Keep the paths of the images that the model is working on, for error messages."""

    def __init__(self):
        self.images = []

    def _before_iter(self, runner, batch_idx, data_batch=None, mode='train'):
        samples = data_batch.get('data_samples', ()) if isinstance(data_batch, dict) else ()
        paths = (getattr(sample, 'img_path', None) for sample in samples)
        self.images = [str(path) for path in paths if path]


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
    launch.prepare_launcher(cfg)
    with bad_arguments_reported():
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        # The runner builds its loop, with data set and loader, only when it is asked for it.
        _ = runner.train_loop if mode == 'train' else runner.test_loop
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
    except (ValueError, KeyError, TypeError, FileExistsError) as error:
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
    """Train or test; an input that mmctx refuses becomes a :class:`UserError` naming the images.

    Args:
        runner (Runner): From :func:`build_runner`.
        mode (str): 'train' or 'test'.

    Returns:
        nn.Module | dict: The trained model, or the metrics.

    Raises:
        UserError: If mmctx itself raised a ValueError, or an image cannot be read.
    """
    try:
        return runner.train() if mode == 'train' else runner.test()
    except (ValueError, AssertionError) as error:
        broken = BROKEN_IMAGE.search(str(error))
        if broken:
            raise UserError(broken[0], one_rank=True) from error
        traceback = error.__traceback__
        while traceback.tb_next:
            traceback = traceback.tb_next
        if not traceback.tb_frame.f_globals.get('__name__', '').startswith('mmctx.'):
            raise
        images = next(hook.images for hook in runner.hooks if isinstance(hook, LastBatch))
        among = f' (images of this batch: {", ".join(images)})' if images else ''
        raise UserError(f'{error}{among}', one_rank=True) from error
