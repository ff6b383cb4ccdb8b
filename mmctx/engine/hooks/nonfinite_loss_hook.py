"""Stop at a loss that is not finite, or leave its batch out."""

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
        here (bool): Whether it is so in this process of a distributed run.
    """

    def __init__(self, message, here=True):
        super().__init__(message)
        self.here = here


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Look at the loss of each iteration before it can reach the weights.

    Args:
        action (str): 'stop' ends the run; 'skip' warns and leaves the batch out, in all processes
            if the loss is not finite in one, together with the gradients that were accumulated
            before it; 'ignore' does nothing. Defaults to 'stop'.
        patience (int): Batches in a row that may be skipped. Defaults to 10.

    Raises:
        UserError: An argument is not one of these.
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
        """Step in between the loss and the optimizer."""
        wrapper = runner.optim_wrapper
        # An OptimWrapperDict is driven by its model, loss by loss.
        if self.action == 'ignore' or not isinstance(wrapper, OptimWrapper):
            return
        self.runner = runner
        update = wrapper.update_params

        def update_params(loss, *args, **kwargs):
            if self._is_usable(loss.detach()):
                update(loss, *args, **kwargs)
            else:
                # The iteration counts, for accumulation and its synchronization.
                wrapper._inner_count += 1
                wrapper.zero_grad()

        wrapper.update_params = update_params

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Remember what the loss will be of."""
        self.batch_idx = batch_idx
        self.images = image_paths(data_batch)

    def after_train(self, runner):
        """Say how often a batch was left out."""
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
            raise NonFiniteLoss(f'{message}; --nonfinite-loss skip leaves such batches out', here)
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row > self.patience:
            raise NonFiniteLoss(f'{message}, and in {self.patience} before it', here)
        for name, value in self.runner.model.named_buffers():
            if name.endswith(('running_mean', 'running_var')) and not value.isfinite().all():
                raise NonFiniteLoss(f'{message}, and has spoilt {name} too: cannot skip it', here)
        images = f' (images: {", ".join(self.images)})' if self.images else ''
        # Only the first process's warnings are seen.
        for report in all_gather_object(f'{message}: skipped{images}' if here else None):
            if report:
                print_log(report, 'current', logging.WARNING)
        return False
