"""What ended a run, in one line that says what to do."""

import errno
import re

from mmengine.hooks import Hook

from mmctx.checkpoints.latest import latest_checkpoint
from mmctx.engine.data import Fetch, SampleError, image_paths
from mmctx.errors import UserError

# What mmcv and mmctx's data sets say of a file that cannot be read, also from a loader's worker.
BROKEN_FILE = re.compile(
    r'failed to load image: .+|(?:^|(?<=Error: )).+ is not a readable (?:image|video).*'
)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What gloo and NCCL say in the processes that are left when one has gone.
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
    """Say what ended a run, where that is a matter of its input or its machine.

    Args:
        error (Exception): What the runner raised.
        runner (Runner): From `build_runner`.

    Returns:
        UserError | None: None for a fault of the code, which needs its traceback.
    """
    first = error.__cause__ if isinstance(error, SampleError) else None
    broken = BROKEN_FILE.search(str(first or error))
    if broken:
        return UserError(broken[0], one_rank=True)
    if isinstance(error, OSError):
        return disk_full(error, runner)
    if isinstance(error, RuntimeError):
        return process_lost(error, runner)
    if not raised_by_mmctx(error):
        return None
    images = next(hook.images for hook in runner.hooks if isinstance(hook, LastBatch))
    here = getattr(error, 'here', True)
    among = f' (images of this batch: {", ".join(images)})' if images and here else ''
    return UserError(f'{error}{among}', one_rank=here)


def raised_by_mmctx(error):
    """Whether an error is one of mmctx's own refusals."""
    traceback = error.__traceback__
    while traceback.tb_next:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_globals.get('__name__', '').startswith('mmctx.')


def disk_full(error, runner):
    """The message for a disk without room; None for another error."""
    if error.errno not in DISK_FULL:
        return None
    saved, _ = latest_checkpoint(runner.work_dir)
    state = f'{saved} is whole' if saved else 'no checkpoint has been saved yet'
    return UserError(
        f'cannot write {error.filename or "to the work dir"}: {error.strerror}. {state}; make room '
        f'on the disk, then go on with --resume',
        one_rank=True,
    )


def process_lost(error, runner):
    """The message for a worker or another training process that died; None for another error."""
    message = str(error)
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        dataset = getattr(getattr(loop, 'dataloader', None), 'dataset', None)
        fetch = getattr(dataset, '__getitems__', None)
        words = fetch.last_words(message) if isinstance(fetch, Fetch) else None
        if words:
            return UserError(
                f'{words}; if memory ran out, lower num_workers or batch_size', one_rank=True
            )
    # A store of data loses connections too.
    own = runner.world_size > 1 and not isinstance(error, SampleError)
    if own and PROCESS_LOST.search(message):
        return UserError(
            f'process {runner.rank} of {runner.world_size} lost another one, which has failed or '
            'was killed: see its message or the log of its machine, then go on with --resume',
            one_rank=True,
        )
    return None
