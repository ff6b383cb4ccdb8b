"""Logging of what the contextual layers do while they are trained."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmctx.errors import UserError
from mmctx.models.unwrapping import bare_model
from mmctx.registry import HOOKS

if TYPE_CHECKING:
    from mmctx.models.context_record import ContextRecord


@HOOKS.register_module()
class ContextLogHook(Hook):
    """Log, through the visualizer's back ends, what the contextual layers do in training.

    One line in a config: `custom_hooks = [dict(type='mmctx.ContextLogHook')]`. Whichever back ends
    the visualizer has (TensorBoard, W&B, MLflow, the run's `scalars.json`) receive:

    * `context/loss_stage<i>`: weighted loss of each stage.
    * `context/recall_stage<i>`: how often the true class stays considered after the stage, in
      percent.
    * `context/temperature`: τ.
    * `context/shift/<convolution>`: mean absolute Δp of each contextual convolution, in pixels of
      its input.
    * `context/kernel_change/<convolution>`: size of Δw relative to w of each contextual
      convolution.

    A network without some of these, such as a detector without stage losses, logs the others.
    Values are of one iteration and of the first process's batch. Nothing is computed in the other
    iterations.

    Args:
        interval (int): Number of iterations between two entries. Defaults to 50.

    Raises:
        UserError: The interval is less than 1.
    """

    def __init__(self, interval: int = 50):
        if not isinstance(interval, int) or interval < 1:
            raise UserError(f'interval should be a whole number of at least 1, got {interval!r}')
        self.interval = interval
        self.recording = ExitStack()
        self.record: ContextRecord | None = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Begin to record, if this iteration is logged."""
        if self.every_n_train_iters(runner, self.interval):
            # Runs without this hook start faster without the import.
            from mmctx.models.context_record import record_context

            self.record = self.recording.enter_context(record_context(bare_model(runner.model)))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch=None,
        outputs: dict[str, Tensor] | None = None,
    ) -> None:
        """Log what was recorded."""
        if self.record is None:
            return
        self.recording.close()
        values = figures_of(bare_model(runner.model), self.record)
        for name, value in (outputs or {}).items():
            if name.startswith('loss_stage'):
                values[name] = value.item()
        self.record = None
        runner.visualizer.add_scalars(
            {f'context/{name}': value for name, value in values.items()}, step=runner.iter + 1
        )


def figures_of(model, record: 'ContextRecord') -> dict[str, float]:
    """Values of `ContextLogHook` but the losses, by name.

    Args:
        model (nn.Module): The network, unwrapped.
        record (ContextRecord): Record of one of its calls.
    """
    from mmctx.models.context_record import mean_shift, recalls, relative_weight_offset
    from mmctx.models.layers import Contextualizing

    values = {f'recall_stage{stage}': 100 * share for stage, share in recalls(record).items()}
    for module in model.modules():
        if isinstance(module, Contextualizing):
            values['temperature'] = (-module.logit_scale.detach()).exp()
    for name, context in record.convolutions.items():
        if context.sampling_offset is not None:
            values[f'shift/{name}'] = mean_shift(context.sampling_offset.detach())
        if context.weight_offset is not None:
            weight = model.get_submodule(name).weight
            values[f'kernel_change/{name}'] = relative_weight_offset(context.weight_offset, weight)
    return {name: value.item() for name, value in values.items()}
