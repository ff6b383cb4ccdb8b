"""Saving and ending a run when a scheduler asks it to stop."""

import signal
import threading

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import EMAHook, Hook

from mmctx.registry import HOOKS

from .checkpoint_hook import CheckpointHook

# Windows has no SIGUSR1.
SIGNALS = tuple(getattr(signal, n) for n in ('SIGTERM', 'SIGUSR1') if hasattr(signal, n))
# EX_TEMPFAIL of sysexits.h: nothing is wrong, try again.
EXIT_STATUS = 75


class Interrupted(SystemExit):
    """End of a run that a signal asked for.

    Args:
        message (str): Sentence that says where the state of the run is saved.
        status (int): Exit status, which is 1 if nothing is saved. Defaults to 75.
    """

    def __init__(self, message, status=EXIT_STATUS):
        super().__init__(status)
        self.message = message


@HOOKS.register_module()
class InterruptionHook(Hook):
    """Save a checkpoint and end the run when one of its processes receives SIGTERM or SIGUSR1.

    All processes end together, after the current training iteration or the current batch of
    validation. An interrupted validation is run again when the run is resumed.
    """

    priority = 'LOWEST'

    def __init__(self):
        self.signal = None
        self._previous = {}
        self._weights_averaged = False
        self._in_step = True

    def before_train(self, runner):
        """Start to handle the signals."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)

    def after_train(self, runner):
        """Restore the previous signal handlers."""
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _receive(self, number, frame):
        self.signal = signal.Signals(number)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """End the run if a process has received a signal."""
        if not self.is_last_train_iter(runner) and self._end_requested():
            self._end(runner, runner.iter + 1)

    def before_val_epoch(self, runner):
        """Find out whether all processes have equally many batches, so that they can agree."""
        lengths = torch.tensor([len(runner.val_dataloader), -len(runner.val_dataloader)])
        all_reduce(lengths, 'max')
        self._in_step = lengths.sum() == 0
        self._weights_averaged = True

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """End the run if a process has received a signal."""
        training = bool(self._previous)
        if training and self._in_step and self._end_requested():
            for hook in runner.hooks if self._weights_averaged else ():
                if isinstance(hook, EMAHook) and getattr(hook, 'evaluate_on_ema', True):
                    hook._swap_ema_parameters()
            self._end(runner, runner.iter)

    def after_val_epoch(self, runner, metrics=None):
        """Note that mmengine has swapped the averaged weights out of the model again."""
        self._weights_averaged = False

    def _end_requested(self):
        if get_world_size() == 1:
            return self.signal is not None
        number = torch.tensor(int(self.signal or 0))
        all_reduce(number, 'max')
        if number and self.signal is None:
            self.signal = signal.Signals(int(number))
        return bool(number)

    def _end(self, runner, iteration):
        hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        name = self.signal.name
        if hook is None:
            message = f'{name}: ended after iteration {iteration}; this config saves no checkpoints'
            status = 1
        elif iteration >= runner.max_iters and hook.save_last:
            message = f'{name}: ended in the last validation; run it again with --resume'
            status = EXIT_STATUS
        else:
            path = hook.save_interrupted(runner, iteration)
            message = f'{name}: saved iteration {iteration} to {path}; resume with --resume'
            status = EXIT_STATUS
        runner.logger.warning(message)
        raise Interrupted(message, status)
