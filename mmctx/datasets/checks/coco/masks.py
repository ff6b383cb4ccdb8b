"""Masks in COCO's format: polygons, run-length codes and compressed ones."""

from mmctx.errors import UserError

from .annotation_file import is_finite


def mask_mistake(mask: object, image: dict | None) -> str:
    """What is wrong with a mask: polygons, or a run-length code, of which compressed ones are
    looked at when the images are read; '' for a good one.
    """
    if isinstance(mask, list):
        if not mask:
            return 'has a mask without polygons'
        for polygon in mask:
            if not isinstance(polygon, list) or not all(map(is_finite, polygon)):
                return 'has a polygon that is no list of numbers'
            if len(polygon) < 6 or len(polygon) % 2:
                return f'has a polygon of {len(polygon)} numbers, not 6, 8, 10, ...'
        return ''
    code = mask if isinstance(mask, dict) else {}
    size = code.get('size')
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(s, int) for s in size):
        return 'has a mask that is neither polygons nor a run-length code with its size'
    if image and size != [image['height'], image['width']]:
        return (
            f'has a mask of {size[1]}x{size[0]} on an image of {image["width"]}x{image["height"]}'
        )
    runs = code.get('counts')
    if isinstance(runs, list):
        return runs_mistake(runs, size)
    return '' if isinstance(runs, str) else 'has a mask without a run-length code'


def runs_mistake(runs: list, size: list[int]) -> str:
    """Find what is wrong with a run-length code of a mask of height and width `size`."""
    if not all(isinstance(run, int) and run >= 0 for run in runs):
        return 'has a run-length code that is no list of lengths'
    if sum(runs) != size[0] * size[1]:
        return f'has a run-length code of {sum(runs)} of its {size[0] * size[1]} pixels'
    return '' if any(runs[1::2]) else 'has an empty mask'


def run_lengths(code: str) -> list[int]:
    """Decode the lengths of the runs of a compressed mask.

    pycocotools fills what a code leaves out with the contents of memory, and reads beyond the end
    of an incomplete code.

    Args:
        code (str): Code of digits of 5 bits, lowest digit first. From the fourth run on, a number
            is the difference to the last but one.

    Returns:
        list[int]: Lengths of the runs.

    Raises:
        UserError: A character is not a digit, or the code is incomplete.
    """
    runs: list[int] = []
    value = shift = 0
    for character in code:
        digit = ord(character) - 48
        if not 0 <= digit < 64:
            raise UserError(f'{character!r} is no digit of it')
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        value -= (digit & 16) and 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise UserError('it breaks off')
    return runs
