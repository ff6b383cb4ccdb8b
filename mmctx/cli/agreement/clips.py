"""Check that the frames of a video fit the segments of a recognizer."""

from typing import Any

from mmctx.errors import UserError

from .sizes import path_of, prepare


def check_clips(model: Any, loader, split: str) -> None:
    """Check that a video gives as many frames as the network has segments.

    Args:
        model (nn.Module): The model, without wrappers; a model without `num_segments` is not
            checked.
        loader (DataLoader): Data loader of the split.
        split (str): 'train', 'val' or 'test', for messages.

    Raises:
        UserError: The numbers of backbone, head and frames differ, or the frames are not images.
    """
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
