"""Checks that metrics fit data and model."""

import torch.nn as nn

from mmctx.datasets.checks.coco.masks import mask_mistake
from mmctx.errors import UserError, first_few

from .classes import class_counts
from .datasets import class_names, metainfo, name_of


def check_metrics(model: nn.Module, metrics: list, datasets: list, split: str) -> None:
    """Compare the metrics of a split with its data sets and the model."""
    for metric in metrics:
        where = f'{type(metric).__name__} of {split}_evaluator'
        check_numbers(model, metric, datasets, where)
        check_considered(model, metric, where)
        if getattr(metric, '_coco_api', None) is not None:
            for dataset in datasets:
                check_images(metric, dataset, where, split)
            check_masks(metric, where)


def check_numbers(model, metric, datasets, where) -> None:
    """Check `topk` and `num_classes` of a metric."""
    named = [class_names(metainfo(dataset)) for dataset in datasets]
    counts = [len(names) for names in named if names] or [n for _, n in class_counts(model)]
    if not counts:
        return
    classes = min(counts)
    # mmaction2's has options for each of its figures.
    options = getattr(metric, 'metric_options', None) or {}
    stated = [getattr(metric, 'topk', None), *(o.get('topk') for o in options.values())]
    topk = [n for numbers in stated if isinstance(numbers, (list, tuple)) for n in numbers]
    topk = [n for n in topk if type(n) is int]
    if topk and max(topk) > classes:
        raise UserError(
            f'topk={max(topk)} of {where} is more than the {classes} classes that there are'
        )
    count = getattr(metric, 'num_classes', None)
    if type(count) is int and named and all(named) and count != classes:
        raise UserError(f'num_classes={count} of {where}, but the data have {classes} classes')


def check_considered(model, metric, where) -> None:
    """Check that a metric has the numbers of classes that the stages of the network keep."""
    stated = getattr(metric, 'considered', None)
    if not isinstance(stated, tuple):
        return
    for module in model.modules():
        kept = getattr(module, 'considered', None)
        if isinstance(kept, tuple) and stated[len(stated) - len(kept) :] != kept:
            raise UserError(
                f'considered={stated} of {where}, but the backbone keeps considered={kept}'
            )


def check_images(metric, dataset, where, split) -> None:
    """Check that the file of a metric lists the images of a data set, under the same ids."""
    if not hasattr(dataset, 'get_data_info'):
        return
    listed, lost = metric._coco_api.imgs, []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        if 'img_id' not in info:
            return
        there = listed.get(info['img_id'])
        if there is None or not str(info.get('img_path', '')).endswith(there['file_name']):
            lost.append(str(info.get('img_path', info['img_id'])))
    if lost:
        raise UserError(
            f'{where} scores by another annotation file than {split}_dataloader reads: it lacks '
            f'{len(lost)} of the {len(dataset)} images of {name_of(dataset)}, or has others under '
            f'their ids: {first_few(lost)}'
        )
    names = class_names(metainfo(dataset)) or ()
    known = {category['name'] for category in metric._coco_api.cats.values()}
    missing = [name for name in names if name not in known]
    if missing:
        raise UserError(
            f'the annotation file of {where} lacks {len(missing)} of the {len(names)} classes of '
            f'{name_of(dataset)}: {first_few(missing)}'
        )


def check_masks(metric, where) -> None:
    """Check that objects have masks if masks are scored."""
    if 'segm' not in getattr(metric, 'metrics', ()) or getattr(metric, 'format_only', False):
        return
    images = metric._coco_api.imgs
    for annotation in metric._coco_api.anns.values():
        image = images.get(annotation['image_id'])
        mask = annotation.get('segmentation')
        mistake = mask_mistake(mask, image) if mask else 'has no mask'
        if image and mistake:
            raise UserError(
                f"{where} has metric='segm', but annotation {annotation['id']} of its file "
                f'{mistake}'
            )
