"""Check that images are not smaller than the stride of the network."""

import copy
from typing import Any

from mmctx.engine.randomness import seed_generators
from mmctx.errors import UserError

from .datasets import leaves

SAMPLES = 3


def check_sizes(model: Any, loader, split: str) -> None:
    """Check that the smallest images of a data set are large enough after the pipeline.

    Only networks that state their stride are checked. The sizes of the files are not enough to
    know, as pipelines enlarge images and preprocessors pad them.

    Args:
        model (nn.Module): The model, without wrappers.
        loader (DataLoader): Data loader of the split.
        split (str): 'train', 'val' or 'test', for messages.

    Raises:
        UserError: An image is smaller than the stride.
    """
    stride = getattr(getattr(model, 'backbone', None), 'stride', None)
    dataset = loader.dataset
    # Wrappers mix samples, and their transforms may store some.
    if type(stride) is not int or leaves(dataset) != [dataset]:
        return
    for index in smallest(dataset):
        sample = prepared(dataset, index)
        if sample is None:
            continue
        batch = model.data_preprocessor(loader.collate_fn([sample]), False)
        inputs = batch['inputs'] if isinstance(batch, dict) else None
        if not hasattr(inputs, 'shape'):
            return
        size = inputs.shape[-2:]
        if min(size) < stride:
            path = dataset.get_data_info(index).get('img_path', f'sample {index}')
            raise UserError(
                f'{path} of {split}_dataloader reaches the network with {size[1]}x{size[0]} '
                f'pixels, but its stride is {stride}: enlarge it in the pipeline (Resize), or pad '
                'it (pad_size_divisor of the data_preprocessor)'
            )


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


def prepared(dataset, index: int):
    """Run the pipeline on a sample without side effects; None if it returns none."""
    pipeline = getattr(dataset, 'pipeline', None)
    if pipeline is None:
        return None
    seed_generators(0, devices=False)
    return copy.deepcopy(pipeline)(dataset.get_data_info(index))
