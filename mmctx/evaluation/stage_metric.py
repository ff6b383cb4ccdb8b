"""How well each stage of a contextual classifier narrows the classes down."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric

from mmctx.registry import METRICS


@METRICS.register_module()
class StageRecall(BaseMetric):
    """How often each stage is right, and how often the true class stays considered after it.

    It reads the `stage_ranks` that `ContextualClsHead` predicts. Samples without them, as those of
    test-time augmentation, do not count.

    Args:
        considered (Sequence[int]): Classes N₂, N₃, N₄ kept after stages 1, 2, 3, as of the
            backbone. Defaults to (500, 200, 50).
        collect_device (str): Device that collects the results, `cpu` or `gpu`. Defaults to `cpu`.
        prefix (str, optional): Prefix of the figures' names. Defaults to None, `stages`.
    """

    default_prefix = 'stages'

    def __init__(
        self,
        considered: Sequence[int] = (500, 200, 50),
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.considered = tuple(considered)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the ranks of a batch of predictions."""
        self.results += [s['stage_ranks'].cpu() for s in data_samples if 'stage_ranks' in s]

    def compute_metrics(self, results: list[torch.Tensor]) -> dict[str, float]:
        """Figures in percent.

        Args:
            results (list[Tensor]): Ranks of the true class at each stage that classifies, the last
                of which is stage 4, (stages,) for each sample.

        Returns:
            dict[str, float]: `top1_stage4`, the share of samples of which the stage is right, and
            `recall@50_stage3`, the share of which the true class is still considered after the
            stage, and so on for the stages before.
        """
        if not results:
            return {}
        ranks = torch.stack(results)
        stages = ranks.shape[1]
        considered = (*self.considered[len(self.considered) + 1 - stages :], None)
        figures = {}
        for stage, rank, keeps in zip(range(5 - stages, 5), ranks.t(), considered):
            figures[f'top1_stage{stage}'] = _percent(rank == 0)
            if keeps is not None:
                figures[f'recall@{keeps}_stage{stage}'] = _percent(rank < keeps)
        return figures


def _percent(hits: torch.Tensor) -> float:
    return 100 * hits.float().mean().item()
