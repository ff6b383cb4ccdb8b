"""End a run in good order when a scheduler wants its place."""

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
    """A signal asked for the end of the run.

    Args:
        message (str): Sentence that says where the state of the run is saved.
        status (int): Exit status; 1 if nothing is saved. Defaults to 75.
    """

    def __init__(self, message, status=EXIT_STATUS):
        super().__init__(status)
        self.message = message


@HOOKS.register_module()
class InterruptionHook(Hook):
    """Save a checkpoint and end the run when one of its processes gets SIGTERM or SIGUSR1.

    It happens after the training iteration, or the batch of validation, that is under way; all
    processes agree on it. A validation that is cut short is run again on resuming.
    """

    priority = 'LOWEST'

    def __init__(self):
        self.signal = None
        self._previous = {}
        self._weights_averaged = False
        self._in_step = True

    def before_train(self, runner):
        """Listen to the signals."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)

    def after_train(self, runner):
        """Listen no longer."""
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _receive(self, number, frame):
        self.signal = signal.Signals(number)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """End here if a process got a signal."""
        if not self.is_last_train_iter(runner) and self._is_wanted():
            self._end(runner, runner.iter + 1)

    def before_val_epoch(self, runner):
        """Find out whether the processes validate in step, so that they can agree."""
        lengths = torch.tensor([len(runner.val_dataloader), -len(runner.val_dataloader)])
        all_reduce(lengths, 'max')
        self._in_step = lengths.sum() == 0
        self._weights_averaged = True

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """End here if a process got a signal."""
        training = bool(self._previous)
        if training and self._in_step and self._is_wanted():
            for hook in runner.hooks if self._weights_averaged else ():
                if isinstance(hook, EMAHook) and getattr(hook, 'evaluate_on_ema', True):
                    hook._swap_ema_parameters()
            self._end(runner, runner.iter)

    def after_val_epoch(self, runner, metrics=None):
        """The averages have left the model."""
        self._weights_averaged = False

    def _is_wanted(self):
        if get_world_size() == 1:
            return self.signal is not None
        wanted = torch.tensor(int(self.signal or 0))
        all_reduce(wanted, 'max')
        if wanted and self.signal is None:
            self.signal = signal.Signals(int(wanted))
        return bool(wanted)

    def _end(self, runner, iteration):
        hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        name = self.signal.name
        if hook is None:
            message = f'{name}: ended after iteration {iteration}; this config saves no checkpoints'
            status = 1
        elif iteration >= runner.max_iters and hook.save_last:
            message = f'{name}: ended in the last validation; do it with --resume'
            status = EXIT_STATUS
        else:
            path = hook.save_interrupted(runner, iteration)
            message = f'{name}: saved iteration {iteration} to {path}; resume with --resume'
            status = EXIT_STATUS
        runner.logger.warning(message)
        raise Interrupted(message, status)
