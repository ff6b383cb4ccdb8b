"""The validation that a resumed run still has to do."""

from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmctx.files import atomic_write
from mmctx.registry import HOOKS

from ..loops import EpochBasedTrainLoop, IterBasedTrainLoop

MARKER = 'last_validation'


@HOOKS.register_module()
class PendingValidationHook(Hook):
    """Run the validation that an uninterrupted run would do next.

    A checkpoint is saved before the validation that is due at its iteration. A resumed run
    therefore starts with that validation, because its results, such as the best score and the step
    of a scheduler, are not in the checkpoint. After the last iteration the validation is skipped if
    it was completed before: the file `last_validation` in the work dir, written after each
    validation, tells.
    """

    # After the hooks that restore the state of the run.
    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Validate if the run was interrupted before or during a validation."""
        if not runner._resume or runner.val_loop is None or not is_due(runner.train_loop):
            return
        # Each machine may have its own work dir, so the first process decides.
        done = [runner.iter >= runner.max_iters and read_marker(runner) == runner.iter]
        broadcast_object_list(done)
        if not done[0]:
            runner.logger.info(
                f'running the validation after iteration {runner.iter}, which the run still lacks'
            )
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Note that the validation is over."""
        if isinstance(runner._train_loop, BaseLoop) and is_main_process():
            with atomic_write(Path(runner.work_dir) / MARKER) as file:
                file.write(str(runner.iter).encode())


def is_due(loop: BaseLoop) -> bool:
    """Whether a validation follows the iteration that a training loop has reached."""
    if isinstance(loop, EpochBasedTrainLoop):
        done, last, within = loop.epoch, loop.max_epochs, loop.batches_done > 0
    elif isinstance(loop, IterBasedTrainLoop):
        done, last, within = loop.iter, loop.max_iters, False
    else:
        return False
    loop._decide_current_val_interval()
    reached = done > 0 and done >= loop.val_begin and not within
    return reached and (done % loop.val_interval == 0 or done == last)


def read_marker(runner: Runner) -> int | None:
    """Iteration of the last completed validation; None if there was none."""
    try:
        return int((Path(runner.work_dir) / MARKER).read_text())
    except (OSError, ValueError):
        return None
