"""Metric of how well each stage of a contextual classifier narrows the classes down."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric

from mmctx.registry import METRICS


@METRICS.register_module()
class StageRecall(BaseMetric):
    """Top-1 accuracy of each stage, and how often the true class is still considered after it.

    It reads the `stage_ranks` that `ContextualClsHead` predicts. Samples without them, such as
    those of test-time augmentation, do not count.

    Args:
        considered (Sequence[int]): Numbers of classes N₂, N₃, N₄ kept after stages 1, 2, 3, the
            same as in the backbone. Defaults to (500, 200, 50).
        collect_device (str): Device that collects the results, `cpu` or `gpu`. Defaults to `cpu`.
        prefix (str, optional): Prefix of the metrics' names. Defaults to None, `stages`.
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
        """Store the ranks of a batch of predictions."""
        self.results += [s['stage_ranks'].cpu() for s in data_samples if 'stage_ranks' in s]

    def compute_metrics(self, results: list[torch.Tensor]) -> dict[str, float]:
        """Compute the metrics in percent.

        Args:
            results (list[Tensor]): Ranks of the true class in each stage that classifies, in order
                up to stage 4, (stages,) for each sample.

        Returns:
            dict[str, float]: `top1_stage4`, the share of samples that the stage classifies
            correctly, `recall@50_stage3`, the share whose true class is still considered after the
            stage, and the same for the earlier stages.
        """
        if not results:
            return {}
        ranks = torch.stack(results)
        stages = ranks.shape[1]
        considered = (*self.considered[len(self.considered) + 1 - stages :], None)
        metrics = {}
        for stage, rank, kept in zip(range(5 - stages, 5), ranks.t(), considered):
            metrics[f'top1_stage{stage}'] = _percent(rank == 0)
            if kept is not None:
                metrics[f'recall@{kept}_stage{stage}'] = _percent(rank < kept)
        return metrics


def _percent(hits: torch.Tensor) -> float:
    return 100 * hits.float().mean().item()
