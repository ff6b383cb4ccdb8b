"""Let the stages learn to rank before the set of considered classes shrinks."""

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmctx.errors import UserError
from mmctx.registry import HOOKS

WAYS = ('rerank', 'narrow')


@HOOKS.register_module()
class CascadeWarmUpHook(Hook):
    """Keep more classes at first, and then as many as the network is built for.

    With `reduce` a sample teaches the last stage only where all stages before kept its class, which
    an untrained cascade does by chance: of 200 classes and 10 kept, for one sample in 20.
    Validation always sees the network as it is built.

    Every `interval` iterations the log is given, for each stage i that narrows, `kept_stage<i>`,
    how many classes it keeps, `recall_stage<i>`, how often the true class is among them, and
    `chance_stage<i>`, how often it would be by chance, both in percent of the process's batch.

    Args:
        share (float): Share of the training's iterations, from 0 to 1, that the warm-up takes.
        way (str): `rerank` trains with `selection='rerank'`, then as built, at once. `narrow` keeps
            all classes at first and narrows to N₂, N₃, N₄ step by step (`kept_at`), in either
            selection. Defaults to `rerank`.
        interval (int): Iterations from one entry of the log to the next; 0 for none. Defaults to
            50.

    Raises:
        UserError: The share or the interval is out of range, or there is no such way.
    """

    def __init__(self, share: float, way: str = 'rerank', interval: int = 50):
        if not 0 <= share <= 1:
            raise UserError(f'share should be from 0 to 1, got {share}')
        if way not in WAYS:
            raise UserError(f'way should be one of {WAYS}, got {way!r}')
        if not isinstance(interval, int) or interval < 0:
            raise UserError(f'interval should be a whole number of at least 0, got {interval!r}')
        self.share, self.way, self.interval = share, way, interval
        self.built: dict = {}
        self.losses: list[nn.Module] = []
        self.recorder: _Recorder | None = None

    def before_run(self, runner: Runner) -> None:
        """Find the contextualizing layers and what they are built to do."""
        # Detectors, which have no use for this hook, start quicker without it.
        from mmctx.models.layers import Contextualizing
        from mmctx.models.losses import StagewiseCrossEntropy

        modules = list(runner.model.modules())
        self.built = {
            m: (m.selection, m.considered) for m in modules if isinstance(m, Contextualizing)
        }
        self.losses = [m for m in modules if isinstance(m, StagewiseCrossEntropy)]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Keep as many classes as the iteration should."""
        done = runner.iter / (self.share * runner.max_iters) if self.share else 1.0
        for layer, (selection, considered) in self.built.items():
            if self.way == 'narrow':
                layer.considered = kept_at(done, layer.embeddings.num_embeddings, considered)
            else:
                layer.selection = 'rerank' if done < 1 else selection
        if self.interval and self.losses and self.every_n_train_iters(runner, self.interval):
            self.recorder = _Recorder([*self.built], self.losses)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Log what was recorded."""
        if self.recorder is not None:
            for name, value in self.recorder.finish().items():
                runner.message_hub.update_scalar(f'train/cascade/{name}', value)
            self.recorder = None

    def before_val(self, runner: Runner) -> None:
        """Validate the network as it is built."""
        self._restore()

    def after_run(self, runner: Runner) -> None:
        """Leave the network as it is built."""
        self._restore()

    def _restore(self) -> None:
        for layer, (selection, considered) in self.built.items():
            layer.selection, layer.considered = selection, considered


def kept_at(done: float, classes: int, considered: Sequence[int]) -> tuple[int, ...]:
    """How many classes stages keep during a warm-up by `narrow`.

    Args:
        done (float): Share of the warm-up that is done; from 1 on it is over.
        classes (int): N₁.
        considered (Sequence[int]): N₂, N₃, N₄.

    Returns:
        tuple[int, ...]: N₁ at first and `considered` in the end; in between the same share is
        dropped by each iteration, so that early stages do not run ahead of late ones.
    """
    done = min(done, 1.0)
    return tuple(round(classes ** (1 - done) * kept**done) for kept in considered)


class _Recorder:
    """Sees which classes one forward pass keeps, and the labels as the loss is given them."""

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
        """Figures by name; empty where nothing was classified."""
        for hook in self.hooks:
            hook.remove()
        if self.target is None:
            return {}
        # The main label of Mixup and CutMix.
        label = self.target[:, None] if self.target.ndim == 1 else self.target.argmax(1, True)
        figures = {}
        for stage, kept in enumerate(self.kept, 4 - len(self.kept)):
            count = int(kept[0].sum())
            figures[f'kept_stage{stage}'] = float(count)
            figures[f'chance_stage{stage}'] = 100 * count / kept.shape[1]
            figures[f'recall_stage{stage}'] = 100 * kept.gather(1, label).float().mean().item()
        return figures
