"""Images as they reach the network, against its stride."""

import copy
from typing import Any

import torch

from mmctx.engine.randomness import seed_generators
from mmctx.errors import UserError

from .datasets import leaves

SAMPLES = 3


def check_sizes(model: Any, loader, split: str) -> None:
    """Check that the smallest images of a data set are large enough once the pipeline is through.

    It is for networks that tell their stride. The sizes that the files or the lists state say
    little: pipelines enlarge images, and preprocessors pad them.

    Args:
        model (BaseModel): The model, without wrappers.
        loader (DataLoader): The data loader.
        split (str): 'train', 'val' or 'test', for messages.

    Raises:
        UserError: An image is smaller than the stride.
    """
    stride = getattr(getattr(model, 'backbone', None), 'stride', None)
    dataset = loader.dataset
    # Wrappers mix samples, and their transforms may keep some.
    if type(stride) is not int or leaves(dataset) != [dataset]:
        return
    for index in smallest(dataset):
        sample = prepared(dataset, index)
        if sample is None:
            continue
        batch = model.data_preprocessor(loader.collate_fn([sample]), False)
        inputs = batch['inputs'] if isinstance(batch, dict) else None
        if not isinstance(inputs, torch.Tensor):
            continue
        size = inputs.shape[-2:]
        if min(size) < stride:
            path = dataset.get_data_info(index).get('img_path', f'sample {index}')
            raise UserError(
                f'{path} of {split}_dataloader reaches the network with {size[1]}x{size[0]} '
                f'pixels, but its stride is {stride}: enlarge it in the pipeline (Resize), or pad '
                'it (pad_size_divisor of the data_preprocessor)'
            )


def smallest(dataset) -> list[int]:
    """Numbers of the samples whose images are listed as the smallest; of the first elsewhere."""
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


def prepared(dataset, index: int):
    """What the pipeline makes of a sample, with nothing left behind; None if it gives none."""
    pipeline = getattr(dataset, 'pipeline', None)
    if pipeline is None:
        return None
    seed_generators(0, devices=False)
    return copy.deepcopy(pipeline)(dataset.get_data_info(index))
