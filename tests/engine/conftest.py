"""A tiny training that exercises every piece of state."""

import signal

import pytest
from toy_run import toy_config

from mmctx import compat
from mmctx.engine import ResumableRunner
from mmctx.engine.hooks.interruption_hook import SIGNALS


@pytest.fixture
def toy_runner(tmp_path):
    """Build a runner in a folder, from the toy's config with changes by dotted key."""
    compat.install_runtime()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def build(name='run', hooks=(), **changes):
        cfg = toy_config(tmp_path / name, **changes)
        cfg.experiment_name = f'{tmp_path.name}_{name}_{build.count}'
        build.count += 1
        runner = ResumableRunner.from_cfg(cfg)
        for hook in hooks:
            runner.register_hook(hook)
        return runner

    build.count = 0
    yield build
    for number, handler in handlers.items():
        signal.signal(number, handler)
