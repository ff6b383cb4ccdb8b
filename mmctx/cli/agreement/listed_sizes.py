"""Check that images have the sizes that an annotation file states."""

import copy

from mmctx.errors import UserError

from .datasets import name_of

SAMPLES = 16


def check_listed_sizes(dataset, split: str) -> None:
    """Compare some images, evenly spread over a data set, with the sizes that are stated.

    If images were scaled or rotated after the file was written, their boxes and masks are in wrong
    places. `check_dataset.py` checks all images.

    Args:
        dataset (Dataset): The data set, without wrappers; a data set without stated sizes is not
            checked.
        split (str): 'train', 'val' or 'test', for messages.

    Raises:
        UserError: An image has another size.
    """
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', None) or ()
    if not steps or not type(steps[0]).__name__.startswith('LoadImage') or not len(dataset):
        return
    wrong, looked_at = [], sorted({i * len(dataset) // SAMPLES for i in range(SAMPLES)})
    for index in looked_at:
        info = dataset.get_data_info(index)
        if not {'width', 'height', 'img_path'} <= set(info):
            return
        stated = info['width'], info['height']
        loaded = steps[0](copy.deepcopy(info))
        found = tuple((loaded or {}).get('ori_shape') or ())[1::-1]
        if found and found != stated:
            turned = ' (turned, perhaps by its EXIF tag)' if found == stated[::-1] else ''
            wrong.append(
                f'{info["img_path"]} is {found[0]}x{found[1]}{turned}, but listed as '
                f'{stated[0]}x{stated[1]}'
            )
    if wrong:
        raise UserError(
            f'{len(wrong)} of {len(looked_at)} images of {split}_dataloader do not have the sizes '
            f'that {name_of(dataset)} states: {wrong[0]}'
        )
