"""Checks that images and clips fit the network as they reach it."""

import copy
from typing import Any

from mmctx.cli.blame import errors_of_others_refused
from mmctx.engine.data import PATHS
from mmctx.engine.randomness import seed_generators
from mmctx.errors import UserError

from .datasets import leaves

SAMPLES = 3


def check_sizes(model: Any, loader, split: str) -> None:
    """Check that the smallest images of a data set are large enough after the pipeline.

    Only networks that state their stride are checked. The sizes of the files are not enough to
    know, as pipelines enlarge images and preprocessors pad them.
    """
    stride = getattr(getattr(model, 'backbone', None), 'stride', None)
    dataset = loader.dataset
    # Wrappers mix samples, and their transforms may store some.
    if type(stride) is not int or leaves(dataset) != [dataset]:
        return
    for index in smallest(dataset):
        sample = prepare(dataset, index, split)
        if sample is None:
            continue
        for view in views_of(sample):
            batch = model.data_preprocessor(loader.collate_fn([view]), False)
            inputs = batch['inputs'] if isinstance(batch, dict) else None
            if not hasattr(inputs, 'shape'):
                return
            size = inputs.shape[-2:]
            if min(size) < stride:
                raise UserError(
                    f'{path_of(dataset, index)} of {split}_dataloader reaches the network with '
                    f'{size[1]}x{size[0]} pixels, but its stride is {stride}: enlarge it in the '
                    'pipeline (Resize), or pad '
                    'it (pad_size_divisor of the data_preprocessor)'
                )


def views_of(sample: dict) -> list[dict]:
    """What the network gets of a sample, one after the other: several views in augmented tests."""
    inputs, samples = sample.get('inputs'), sample.get('data_samples')
    if not isinstance(inputs, list) or not isinstance(samples, list):
        return [sample]
    return [dict(inputs=view, data_samples=of_view) for view, of_view in zip(inputs, samples)]


def check_clips(model: Any, loader, split: str) -> None:
    """Check that a video gives as many frames as a network with `num_segments` has segments."""
    segments = {
        f'model.{name}.num_segments': getattr(getattr(model, name, None), 'num_segments', None)
        for name in ('backbone', 'cls_head')
    }
    segments = {key: count for key, count in segments.items() if type(count) is int}
    if not segments:
        return
    if len(set(segments.values())) > 1:
        both = ' and '.join(f'{key} is {count}' for key, count in segments.items())
        raise UserError(f'{both}: give both the same number')
    key, count = next(iter(segments.items()))
    sample = prepare(loader.dataset, 0, split) if len(loader.dataset) else None
    inputs = sample.get('inputs') if isinstance(sample, dict) else None
    if not hasattr(inputs, 'shape'):
        return
    shape = tuple(inputs.shape)
    name = f'{path_of(loader.dataset, 0)} of {split}_dataloader'
    if len(shape) != 4:
        raise UserError(
            f'{name} reaches the network in the shape {shape}, but it takes frames, channels, '
            "height and width: set input_format='NCHW' in FormatShape"
        )
    # In training each video has one score; in a test the scores of its clips are averaged.
    if shape[0] % count or (split == 'train' and shape[0] != count):
        raise UserError(
            f'{name} gives {shape[0]} frames, but {key} is {count}: sample as many '
            f'(num_clips={count} and clip_len=1 of SampleFrames), or set the num_segments of '
            f'backbone and head to {shape[0]}'
        )


def prepare(dataset, index: int, split: str) -> Any:
    """What the pipeline makes of a sample; None if there is none, or if broken ones are skipped.

    Raises:
        UserError: The sample cannot be read, or does not suit the pipeline.
    """
    if getattr(dataset, 'pipeline', None) is None:
        return None
    # Transforms may store samples.
    pipeline = copy.deepcopy(dataset.pipeline)
    seed_generators(0, devices=False)
    message = f'{path_of(dataset, index)} of {split}_dataloader cannot be prepared by the pipeline'
    with errors_of_others_refused(message):
        try:
            return pipeline(dataset.get_data_info(index))
        except Exception:
            if getattr(dataset, 'skip_broken', False):
                return None
            raise


def path_of(dataset, index: int) -> str:
    """The file of a sample, or its number."""
    info = dataset.get_data_info(index)
    return next((info[key] for key in PATHS if info.get(key)), f'sample {index}')


def smallest(dataset) -> list[int]:
    """Indices of the samples with the smallest images by their lists, or else of the first ones."""
    if not hasattr(dataset, 'get_data_info') or not len(dataset):
        return []
    info = dataset.get_data_info(0)
    if not {'width', 'height'} <= set(info):
        return list(range(min(SAMPLES, len(dataset))))
    sides = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        sides.append((min(info['width'], info['height']), index))
    return [index for _, index in sorted(sides)[:SAMPLES]]
