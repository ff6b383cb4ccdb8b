"""Warm-up that lets the stages learn to rank before the set of considered classes shrinks."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmctx.errors import UserError
from mmctx.models.unwrapping import bare_model
from mmctx.registry import HOOKS

if TYPE_CHECKING:
    from mmctx.models.context_record import ContextRecord

WAYS = ('rerank', 'narrow')


@HOOKS.register_module()
class CascadeWarmUpHook(Hook):
    """Keep more classes in the first part of training than the network is configured to.

    With `selection='reduce'` the last stage learns from a sample only if all earlier stages kept
    its class. An untrained cascade keeps it by chance: with 10 of 200 classes kept, for one sample
    in 20. Validation always uses the network as configured.

    Every `interval` iterations the hook logs for each stage i that drops classes: `kept_stage<i>`,
    the number of classes that it keeps; `recall_stage<i>`, how often the true class is among them;
    and `chance_stage<i>`, how often it would be among them by chance. The last two are in percent
    of the process's batch.

    Args:
        share (float): Share of the training's iterations, from 0 to 1, that the warm-up takes.
        way (str): How the warm-up keeps more classes. `rerank`: with `selection='rerank'`, until
            the warm-up ends. `narrow`: with all classes at first, and then step by step fewer, down
            to N₂, N₃, N₄ (`kept_at`), in either selection. Defaults to `rerank`.
        interval (int): Number of iterations between two log entries; 0 for no entries. Defaults to
            50.

    Raises:
        UserError: The share or the interval is out of range, or the way is unknown.
    """

    def __init__(self, share: float, way: str = 'rerank', interval: int = 50):
        if not 0 <= share <= 1:
            raise UserError(f'share should be from 0 to 1, got {share}')
        if way not in WAYS:
            raise UserError(f'way should be one of {WAYS}, got {way!r}')
        if not isinstance(interval, int) or interval < 0:
            raise UserError(f'interval should be a whole number of at least 0, got {interval!r}')
        self.share, self.way, self.interval = share, way, interval
        self.configured: dict = {}
        self.recording = ExitStack()
        self.record: ContextRecord | None = None

    def before_run(self, runner: Runner) -> None:
        """Find the contextualizing layers and remember their configuration."""
        # Detectors, which do not use this hook, start faster without these imports.
        from mmctx.models.layers import Contextualizing

        self.configured = {
            m: (m.selection, m.considered)
            for m in runner.model.modules()
            if isinstance(m, Contextualizing)
        }

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Set how many classes are kept in this iteration."""
        done = runner.iter / (self.share * runner.max_iters) if self.share else 1.0
        for layer, (selection, considered) in self.configured.items():
            if self.way == 'narrow':
                layer.considered = kept_at(done, layer.embeddings.num_embeddings, considered)
            else:
                layer.selection = 'rerank' if done < 1 else selection
        if self.interval and self.every_n_train_iters(runner, self.interval):
            from mmctx.models.context_record import record_context

            self.record = self.recording.enter_context(record_context(bare_model(runner.model)))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Log the recorded values."""
        if self.record is not None:
            self.recording.close()
            for name, value in _figures(self.record).items():
                runner.message_hub.update_scalar(f'train/cascade/{name}', value)
            self.record = None

    def before_val(self, runner: Runner) -> None:
        """Restore the configuration for validation, and likewise at the end."""
        for layer, (selection, considered) in self.configured.items():
            layer.selection, layer.considered = selection, considered

    after_run = before_val


def kept_at(done: float, classes: int, considered: Sequence[int]) -> tuple[int, ...]:
    """Compute how many classes the stages keep at one point of a warm-up by `narrow`.

    Args:
        done (float): Share of the warm-up that is done; at 1 or more it is over.
        classes (int): Number of all classes, N₁.
        considered (Sequence[int]): Numbers of classes kept after the warm-up, N₂, N₃, N₄.

    Returns:
        tuple[int, ...]: N₁ for each stage at first and `considered` at the end. In between, each
        iteration drops the same share of a stage's classes, so that all stages narrow at an even
        pace.
    """
    done = min(done, 1.0)
    return tuple(round(classes ** (1 - done) * kept**done) for kept in considered)


def _figures(record: 'ContextRecord') -> dict[str, float]:
    """Values to log, by name; none if nothing was classified."""
    from mmctx.models.context_record import recalls

    values = {}
    for stage, recall in recalls(record).items():
        kept: Any = record.stages[stage].kept
        count = int(kept[0].sum())
        values[f'kept_stage{stage}'] = float(count)
        values[f'chance_stage{stage}'] = 100 * count / kept.shape[1]
        values[f'recall_stage{stage}'] = 100 * recall.item()
    return values
