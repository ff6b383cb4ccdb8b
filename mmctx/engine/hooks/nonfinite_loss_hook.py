"""Stopping at a loss that is not finite, or skipping its batch."""

import logging

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper

from mmctx.engine.data import image_paths
from mmctx.errors import UserError
from mmctx.registry import HOOKS

ACTIONS = ('stop', 'skip', 'ignore')


class NonFiniteLoss(UserError):
    """The loss is not a finite number.

    Args:
        message (str): Sentence that says where it happened.
        here (bool): Whether the loss of this process, in a distributed run, is not finite.
            Defaults to True.
    """

    def __init__(self, message, here=True):
        super().__init__(message)
        self.here = here


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Check the loss of each iteration before it can change the weights.

    Args:
        action (str): What to do about a loss that is not finite. `stop` ends the run. `skip` warns
            and skips the batch, in all processes even if the loss is not finite in only one of
            them, together with the gradients accumulated before it. `ignore` does nothing. Defaults
            to `stop`.
        patience (int): Largest number of successive batches that may be skipped. Defaults to 10.

    Raises:
        UserError: The action is unknown, or the patience is less than 1.
    """

    priority = 'HIGH'

    def __init__(self, action: str = 'stop', patience: int = 10):
        if action not in ACTIONS:
            raise UserError(f'nonfinite_loss should be one of {ACTIONS}, got {action!r}')
        if patience < 1:
            raise UserError(f'patience should be at least 1, got {patience}')
        self.action = action
        self.patience = patience
        self.skipped = 0
        self.in_a_row = 0

    def before_train(self, runner):
        """Put the check between the loss and the optimizer."""
        wrapper = runner.optim_wrapper
        # With an OptimWrapperDict the model itself updates the weights, loss by loss.
        if self.action == 'ignore' or not isinstance(wrapper, OptimWrapper):
            return
        self.runner = runner
        update = wrapper.update_params

        def update_params(loss, *args, **kwargs):
            if self._is_usable(loss.detach()):
                update(loss, *args, **kwargs)
            else:
                # The iteration still counts, as accumulation is synchronized by this number.
                wrapper._inner_count += 1
                wrapper.zero_grad()

        wrapper.update_params = update_params

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Remember the batch for a message."""
        self.batch_idx = batch_idx
        self.images = image_paths(data_batch)

    def after_train(self, runner):
        """Log how many batches were skipped."""
        if self.skipped:
            runner.logger.warning(f'{self.skipped} batches without a finite loss were skipped')

    def _is_usable(self, loss):
        here = (~torch.isfinite(loss)).any().long()
        anywhere = here.clone()
        all_reduce(anywhere, 'max')
        if not anywhere:
            self.in_a_row = 0
            return True
        here = bool(here)
        epoch, iteration = self.runner.epoch + 1, self.runner.iter + 1
        where = f'at iteration {iteration} (epoch {epoch}, batch {self.batch_idx + 1})'
        if not here:
            message = f'the loss is not finite {where} in another process'
        else:
            message = f'the loss is {loss.sum().item()} {where} in process {get_rank()}'
        if self.action == 'stop':
            raise NonFiniteLoss(f'{message}; --nonfinite-loss skip skips such batches', here)
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row > self.patience:
            raise NonFiniteLoss(f'{message}, as in the {self.patience} before it', here)
        for name, value in self.runner.model.named_buffers():
            if name.endswith(('running_mean', 'running_var')) and not value.isfinite().all():
                raise NonFiniteLoss(f'{message}, and has spoilt {name} too: cannot skip it', here)
        images = f' (images: {", ".join(self.images)})' if self.images else ''
        # Only warnings of the first process are shown.
        for report in all_gather_object(f'{message}: skipped{images}' if here else None):
            if report:
                print_log(report, 'current', logging.WARNING)
        return False
