"""Predictions as plain values and as pictures."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from torch import Tensor


def entries_of(
    kind: str, sample: Any, classes: Sequence[str] | None, score_thr: float, top_k: int
) -> dict[str, list[dict]]:
    """Convert a prediction to values that JSON can store; see `Predictor.__call__`.

    Args:
        kind (str): Framework of the network.
        sample (DataSample | DetDataSample | ActionDataSample): The prediction.
        classes, score_thr, top_k: As of `Predictor`.
    """
    if kind != 'mmdet':
        scores = sample.pred_score.flatten()
        best = scores.topk(min(top_k, len(scores)))
        pairs = zip(best.indices.tolist(), best.values.tolist())
        return dict(labels=[_named(label, score, classes) for label, score in pairs])
    segments = {}
    if 'pred_panoptic_seg' in sample:
        segments['segments'] = _segments(sample.pred_panoptic_seg.sem_seg, classes)
        if 'pred_instances' not in sample:
            return segments
    found = sample.pred_instances.cpu()
    found = found[found.scores.argsort(descending=True)]
    found = found[found.scores >= score_thr]
    objects = []
    for i, (label, score) in enumerate(zip(found.labels.tolist(), found.scores.tolist())):
        entry = _named(label, score, classes)
        entry['box'] = [round(side, 2) for side in found.bboxes[i].tolist()]
        if 'masks' in found:
            entry['mask'] = _run_lengths(found.masks[i])
        objects.append(entry)
    return dict(objects=objects, **segments)


def _segments(ids: Tensor, classes: Sequence[str] | None) -> list[dict]:
    """Segments of a panoptic map, (1, H, W), the largest first."""
    from mmdet.evaluation.functional import INSTANCE_OFFSET

    ids = ids.squeeze(0).cpu()
    segments = []
    for number in ids.unique().tolist():
        label = number % INSTANCE_OFFSET
        # The number after the last class stands for what is of none.
        if classes and label >= len(classes):
            continue
        mask = ids == number
        entry = dict(label=label, name=classes[label] if classes else None)
        segments.append(dict(entry, share=round(mask.float().mean().item(), 5), mask=mask))
    segments.sort(key=lambda entry: -entry['share'])
    return [dict(entry, mask=_run_lengths(entry['mask'])) for entry in segments]


def _named(label: int, score: float, classes: Sequence[str] | None) -> dict:
    return dict(label=label, name=classes[label] if classes else None, score=round(score, 5))


def _run_lengths(mask: Tensor) -> dict:
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return dict(size=encoded['size'], counts=encoded['counts'].decode())


def draw(
    kind: str,
    path: str,
    sample: Any,
    entries: dict[str, list[dict]],
    classes: Sequence[str] | None,
    score_thr: float,
    out: str | os.PathLike,
) -> None:
    """Draw a prediction, with the framework's own visualizer, into a file.

    Args:
        kind (str): Framework of the network.
        path (str): Path of the image, or of the video, whose middle frame is drawn.
        sample (DataSample | DetDataSample | ActionDataSample): The prediction.
        entries (dict[str, list[dict]]): Prediction as returned by `entries_of`.
        classes, score_thr: As of `Predictor`.
        out (str | os.PathLike): Path of the picture; its folder is created.
    """
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    if kind == 'mmdet':
        from mmdet.visualization import DetLocalVisualizer

        if entries.get('segments') == []:
            # mmdet cannot draw a map of none.
            sample = sample.clone()
            del sample.pred_panoptic_seg
        visualizer = DetLocalVisualizer()
        visualizer.dataset_meta = dict(classes=classes, palette='random')
        visualizer.add_datasample(
            'prediction',
            mmcv.imread(path, channel_order='rgb'),
            sample,
            draw_gt=False,
            pred_score_thr=score_thr,
            out_file=str(out),
        )
        return
    image = _middle_frame(path) if kind == 'mmaction' else mmcv.imread(path, channel_order='rgb')
    _write_labels(image, entries['labels'], out)


def _write_labels(image: np.ndarray, labels: list[dict], out: str | os.PathLike) -> None:
    """Write classes and scores onto an RGB image."""
    from mmengine.visualization import Visualizer

    # Small images need room for the text, but not a narrow one that would become huge.
    scale = max(1, min(-(-224 // min(image.shape[:2])), 1024 // max(image.shape[:2])))
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    lines = [f'{title_of(entry)} {entry["score"]:.2f}' for entry in labels]
    visualizer = Visualizer(image=image)
    visualizer.draw_texts(
        '\n'.join(lines),
        np.array([6, 6]),
        font_sizes=max(min(image.shape[:2]) // 28, 7),
        colors='white',
        bboxes=dict(facecolor='black', alpha=0.6, edgecolor='none'),
    )
    mmcv.imwrite(visualizer.get_image()[..., ::-1], str(out))


def title_of(entry: dict) -> str:
    """Name of the class of a prediction, or its number where it has none."""
    return str(entry['name'] if entry['name'] is not None else entry['label'])


def _middle_frame(path: str) -> np.ndarray:
    from mmctx.datasets.video_file import Video

    video = Video(path)
    try:
        (frame,) = video.read([video.total_frames // 2])
    finally:
        video.close()
    return frame


def in_words(result: dict) -> str:
    """Describe a result of `Predictor.__call__` in one line."""
    if 'error' in result:
        return f'{result["path"]}: {result["error"]}'
    found = result.get('labels') or result.get('objects') or []
    words = ', '.join(f'{title_of(entry)} {entry["score"]:.2f}' for entry in found)
    parts = result.get('segments') or []
    if parts and not found:
        words = ', '.join(f'{title_of(entry)} {entry["share"]:.0%}' for entry in parts)
    return f'{result["path"]}: {words or "nothing found"}'
