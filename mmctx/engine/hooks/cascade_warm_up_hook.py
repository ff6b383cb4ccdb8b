"""Warm-up that lets the stages learn to rank before the set of considered classes shrinks."""

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmctx.errors import UserError
from mmctx.registry import HOOKS

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
        self.losses: list[nn.Module] = []
        self.recorder: _Recorder | None = None

    def before_run(self, runner: Runner) -> None:
        """Find the contextualizing layers and remember their configuration."""
        # Detectors, which do not use this hook, start faster without these imports.
        from mmctx.models.layers import Contextualizing
        from mmctx.models.losses import StagewiseCrossEntropy

        modules = list(runner.model.modules())
        self.configured = {
            m: (m.selection, m.considered) for m in modules if isinstance(m, Contextualizing)
        }
        self.losses = [m for m in modules if isinstance(m, StagewiseCrossEntropy)]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Set how many classes are kept in this iteration."""
        done = runner.iter / (self.share * runner.max_iters) if self.share else 1.0
        for layer, (selection, considered) in self.configured.items():
            if self.way == 'narrow':
                layer.considered = kept_at(done, layer.embeddings.num_embeddings, considered)
            else:
                layer.selection = 'rerank' if done < 1 else selection
        if self.interval and self.losses and self.every_n_train_iters(runner, self.interval):
            self.recorder = _Recorder([*self.configured], self.losses)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Log the recorded values."""
        if self.recorder is not None:
            for name, value in self.recorder.finish().items():
                runner.message_hub.update_scalar(f'train/cascade/{name}', value)
            self.recorder = None

    def before_val(self, runner: Runner) -> None:
        """Restore the configuration for validation."""
        self._restore()

    def after_run(self, runner: Runner) -> None:
        """Restore the configuration at the end."""
        self._restore()

    def _restore(self) -> None:
        for layer, (selection, considered) in self.configured.items():
            layer.selection, layer.considered = selection, considered


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


class _Recorder:
    """Recorder of the classes that one forward pass keeps, and of the labels that the loss gets."""

    def __init__(self, layers: Sequence[nn.Module], losses: Sequence[nn.Module]):
        self.kept: list[Tensor] = []
        self.target: Tensor | None = None
        self.hooks = [layer.register_forward_hook(self._see_stage) for layer in layers]
        self.hooks += [loss.register_forward_pre_hook(self._see_target) for loss in losses]

    def _see_stage(self, module, args, context) -> None:
        if context.kept is not None:
            self.kept.append(context.kept)

    def _see_target(self, module, args) -> None:
        self.target = args[1]

    def finish(self) -> dict[str, float]:
        """Stop recording, and return the values by name, or none if nothing was classified."""
        for hook in self.hooks:
            hook.remove()
        if self.target is None:
            return {}
        # Mixup and CutMix have several labels, of which the main one counts.
        label = self.target[:, None] if self.target.ndim == 1 else self.target.argmax(1, True)
        values = {}
        for stage, kept in enumerate(self.kept, 4 - len(self.kept)):
            count = int(kept[0].sum())
            values[f'kept_stage{stage}'] = float(count)
            values[f'chance_stage{stage}'] = 100 * count / kept.shape[1]
            values[f'recall_stage{stage}'] = 100 * kept.gather(1, label).float().mean().item()
        return values
