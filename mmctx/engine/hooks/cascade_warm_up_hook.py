"""Let the stages learn to rank before the set of considered classes shrinks."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmctx.errors import UserError
from mmctx.registry import HOOKS


@HOOKS.register_module()
class CascadeWarmUpHook(Hook):
    """Train at first with `selection='rerank'`, and then as the network is built.

    With `reduce` a sample teaches the last stage only where all stages before kept its class, which
    an untrained cascade does by chance: of 200 classes and 10 kept, for one sample in 20.
    Validation always sees the network as it is built.

    Args:
        share (float): Share of the training's iterations, from 0 to 1.

    Raises:
        UserError: The share is out of range.
    """

    def __init__(self, share: float):
        if not 0 <= share <= 1:
            raise UserError(f'share should be from 0 to 1, got {share}')
        self.share = share
        self.selections: dict = {}

    def before_run(self, runner: Runner) -> None:
        """Find the contextualizing layers and what they are built to do."""
        # Detectors, which have no use for this hook, start quicker without it.
        from mmctx.models.layers import Contextualizing

        layers = [m for m in runner.model.modules() if isinstance(m, Contextualizing)]
        self.selections = {layer: layer.selection for layer in layers}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Rerank while warming up."""
        warming_up = runner.iter < self.share * runner.max_iters
        for layer, selection in self.selections.items():
            layer.selection = 'rerank' if warming_up else selection

    def before_val(self, runner: Runner) -> None:
        """Validate the network as it is built."""
        self._restore()

    def after_run(self, runner: Runner) -> None:
        """Leave the network as it is built."""
        self._restore()

    def _restore(self) -> None:
        for layer, selection in self.selections.items():
            layer.selection = selection
