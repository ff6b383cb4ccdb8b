"""COCO's figures for detectors that find nothing yet."""

import numpy as np
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmdet.structures.mask import encode_mask_results

from mmctx.registry import METRICS


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """mmdet's `CocoMetric`, which also reports zeros where no image has a detection.

    mmdet's leaves all figures out then, as COCO's API cannot read an empty list, and a run early in
    training looks as if it had not been evaluated. Arguments are those of mmdet's.
    """

    def compute_metrics(self, results: list[tuple[dict, dict]]) -> dict[str, float]:
        """Compute the figures from one (ground truth, prediction) for each image."""
        if results and not any(len(prediction['scores']) for _, prediction in results):
            results = [with_placeholder_detection(*results[0]), *results[1:]]
        return super().compute_metrics(results)


def with_placeholder_detection(truth: dict, prediction: dict) -> tuple[dict, dict]:
    """Add an empty box of score 0, which matches nothing, so that every figure comes out as 0."""
    nothing = dict(
        prediction,
        bboxes=np.zeros((1, 4), np.float32),
        scores=np.zeros(1, np.float32),
        labels=np.zeros(1, np.int64),
    )
    if 'masks' in prediction:
        blank = np.zeros((1, truth['height'], truth['width']), bool)
        nothing['masks'] = encode_mask_results(blank)
    return truth, nothing
