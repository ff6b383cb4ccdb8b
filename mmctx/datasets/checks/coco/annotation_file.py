"""COCO's annotation files: how to read them, and the keys that an entry needs."""

import contextlib
import gc
import json
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

from mmctx.errors import UserError


@contextlib.contextmanager
def _no_garbage_collection():
    # Millions of new objects would trigger it again and again: COCO's file would take five times as
    # long.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def is_whole(value):
    return isinstance(value, int)


def is_positive(value):
    return isinstance(value, int) and value > 0


def is_number(value):
    return isinstance(value, (int, float))


def is_finite(value):
    return is_number(value) and math.isfinite(value)


def is_text(value):
    return isinstance(value, str)


def is_box(value):
    return isinstance(value, list) and len(value) == 4 and all(map(is_finite, value))


# Pixels by which a box may exceed its image, as coordinates are rounded.
MARGIN = 1.0
# Keys that mmdet and COCO's API expect; the API needs ids of annotations, too.
FIELDS = {
    'images': dict(id=is_whole, file_name=is_text, width=is_positive, height=is_positive),
    'categories': dict(id=is_whole, name=is_text),
    'annotations': dict(
        image_id=is_whole,
        category_id=is_whole,
        bbox=is_box,
        area=is_number,
        iscrowd=is_whole,
        id=is_whole,
    ),
}


def read_json(path):
    """Read an annotation file.

    Raises:
        UserError: The file cannot be read or is not JSON.
    """
    try:
        with open(path, 'rb') as file, _no_garbage_collection():
            # As bytes, so that a byte order mark is recognized.
            return json.loads(file.read())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'annotation file {path} is not readable JSON: {error}') from error


def repeated(values: Iterable[Hashable]) -> list:
    """Find the values that occur more than once, each once."""
    return [value for value, count in Counter(values).items() if count > 1]


def leaves_image(box: Sequence[float], image: dict) -> bool:
    """Whether a box (x, y, width, height) exceeds its image by more than rounding explains."""
    x, y, width, height = box
    return (
        min(x, y) < -MARGIN
        or x + width > image['width'] + MARGIN
        or y + height > image['height'] + MARGIN
    )


def name_twins(categories: Sequence[dict]) -> list[list[dict]]:
    """Find categories whose names differ only in case or white space, as after merging files."""
    groups = defaultdict(list)
    for category in categories:
        groups[''.join(category['name'].split()).casefold()].append(category)
    return [group for group in groups.values() if len({c['name'] for c in group}) > 1]


def contradicting_images(contents: dict) -> list[str]:
    """Find names of images that have several ids, with different objects under each id."""
    by_name = defaultdict(list)
    for image in contents['images']:
        by_name[image['file_name']].append(image['id'])
    ids = {name: found for name, found in by_name.items() if len(found) > 1}
    objects: dict = {id: [] for found in ids.values() for id in found}
    for entry in contents['annotations'] if ids else ():
        if entry['image_id'] in objects:
            objects[entry['image_id']].append((entry['category_id'], *entry['bbox']))
    return [
        name for name, found in ids.items() if len({tuple(sorted(objects[id])) for id in found}) > 1
    ]


def entry_mistake(entry, fields):
    """What is wrong with an entry that needs these `FIELDS`; '' for a good one."""
    if not isinstance(entry, dict):
        return 'is no object'
    missing = [key for key in fields if key not in entry]
    if missing:
        return f'has no {", ".join(missing)}'
    wrong = [key for key, is_valid in fields.items() if not is_valid(entry[key])]
    return f'has {wrong[0]}={str(entry[wrong[0]])[:60]!r}' if wrong else ''
