"""Reports of what ended a run: one line that says what to do."""

import re

from mmengine.hooks import Hook

from mmctx.checkpoints.latest import find_latest
from mmctx.engine.data import BatchReader, SampleError, UnreadableSample, image_paths
from mmctx.errors import DISK_FULL, UserError, recognise

from .blame import refusal_of_others

# Messages of gloo and NCCL in the remaining processes after one process has ended.
PROCESS_LOST = re.compile(
    r'Connection (?:closed|reset) by peer|Connection refused|remote process exited'
)


class LastBatch(Hook):
    """Keep the paths of the images that the model is working on, for error messages."""

    def __init__(self):
        self.images = []

    def _before_iter(self, runner, batch_idx, data_batch=None, mode='train'):
        self.images = image_paths(data_batch)


def explain(error, runner):
    """Report what ended a run if the cause is its input or its machine.

    Args:
        error (Exception): Exception that the runner raised.
        runner (Runner): Runner of :func:`mmctx.cli.running.build_runner`.

    Returns:
        UserError | None: The report; None for a bug, which needs its traceback.
    """
    if isinstance(error, UnreadableSample):
        return error
    if isinstance(error, UserError):
        return with_images(error, runner)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return disk_full(error, runner)
    if isinstance(error, RuntimeError):
        return process_lost(error, runner)
    # mmengine raises it anew, to add the hook's name.
    if isinstance(error, TypeError) and isinstance(error.__context__, TypeError):
        error = error.__context__
    # Some hooks build objects from their arguments when the run begins.
    refusal = recognise(error) or refusal_of_others(error)
    return refusal and UserError(refusal, one_rank=True)


def with_images(refusal, runner):
    """Add the paths of the images of a refused batch to the message."""
    images = next((hook.images for hook in runner.hooks if isinstance(hook, LastBatch)), [])
    # Losses are compared between processes, so a process may report another one's loss.
    here = getattr(refusal, 'here', True)
    among = f' (images of this batch: {", ".join(images)})' if images and here else ''
    return UserError(f'{refusal}{among}', one_rank=here)


def disk_full(error, runner):
    """Make the report of a full disk."""
    saved = find_latest(runner.work_dir).path
    state = f'{saved} is whole' if saved else 'no checkpoint has been saved yet'
    return UserError(
        f'cannot write {error.filename or "to the work dir"}: {error.strerror}. {state}; make room '
        f'on the disk, then resume with --resume',
        one_rank=True,
    )


def process_lost(error, runner):
    """Make the report of a worker or another process that died; None for any other error."""
    message = str(error)
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        dataset = getattr(getattr(loop, 'dataloader', None), 'dataset', None)
        fetch = getattr(dataset, '__getitems__', None)
        died = fetch.describe_dead_workers(message) if isinstance(fetch, BatchReader) else None
        if died:
            return UserError(
                f'{died}; if memory ran out, lower num_workers or batch_size', one_rank=True
            )
    # Connections to a remote storage of data can be lost too.
    own = runner.world_size > 1 and not isinstance(error, SampleError)
    if own and PROCESS_LOST.search(message):
        return UserError(
            f'process {runner.rank} of {runner.world_size} lost another one, which has failed or '
            'was killed: see its message or the log of its machine, then resume with --resume',
            one_rank=True,
        )
    return None
