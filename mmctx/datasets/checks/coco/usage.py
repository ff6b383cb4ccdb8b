"""How much of an annotation file mmdet uses in training, and what it silently leaves out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from .annotation_file import leaves_image
from .masks import mask_mistake

LONG = 100_000
UNLISTED_CATEGORY = 'of categories that are not listed'


class Use(NamedTuple):
    """How a data set uses an annotation file.

    Attributes:
        name (str): Name of the data set in messages.
        classes (Sequence[str] | None): Class names of the data set; None for all categories of the
            file.
        masks (bool): Whether objects have to have masks.
        drops_empty (bool): Whether images without an object of the classes are left out.
        min_size (int): Smallest side of an image in pixels; smaller images are left out.
    """

    name: str
    classes: Sequence[str] | None = None
    masks: bool = False
    drops_empty: bool = False
    min_size: int = 0


class Usage(NamedTuple):
    """How much of an annotation file a data set uses.

    Attributes:
        objects (int): Number of objects in the file.
        dropped (Counter): Number of objects that are left out, by reason.
        broken_masks (list[str]): Objects that would end a run, each with the mistake in its mask.
        images (int): Number of images in the file.
        kept_images (int): Number of images that are used.
        crowded (int): Number of used objects that only mark regions to ignore.
        leaving (list[str]): Used objects whose boxes exceed their images.
        categories (set[int]): Ids of the categories of used objects.
    """

    objects: int
    dropped: Counter
    broken_masks: list
    images: int
    kept_images: int
    crowded: int
    leaving: list
    categories: set

    @property
    def used(self) -> int:
        """Number of objects that are used."""
        return self.objects - self.dropped.total()

    def __str__(self):
        text = (
            f'{self.used} of {self.objects} objects on {self.kept_images} of {self.images} images'
        )
        left_out = ', '.join(f'{count} {reason}' for reason, count in self.dropped.most_common())
        return f'{text} are used' + (f' (left out: {left_out})' if left_out else '')


def usage_of(contents: dict, use: Use) -> Usage:
    """Count the objects of a file that mmdet's `CocoDataset` uses.

    Args:
        contents (dict): Contents of the annotation file, whose entries are complete.
        use (Use): How the data set uses the file.
    """
    images = {image['id']: image for image in contents['images']}
    wanted = {
        category['id']
        for category in contents['categories']
        if use.classes is None or category['name'] in use.classes
    }
    listed = {category['id'] for category in contents['categories']}
    dropped: Counter = Counter()
    broken, leaving = [], []
    occupied, found = set(), set()
    crowded = 0
    for index, entry in enumerate(tracked(contents['annotations'], f'objects of {use.name}')):
        image = images.get(entry['image_id'])
        category = entry['category_id']
        if category in wanted:
            # Images are left out for being empty before the conditions below are checked.
            occupied.add(entry['image_id'])
        reason = _why_dropped(entry, image, category, wanted, listed)
        if not reason and use.masks:
            reason, mistake = _look_at_mask(entry.get('segmentation'), image)
            if mistake:
                broken.append(f'annotations[{index}] {mistake}')
        if reason:
            dropped[reason] += 1
        else:
            crowded += bool(entry['iscrowd'])
            found.add(category)
            if image and leaves_image(entry['bbox'], image):
                leaving.append(f'annotations[{index}] has bbox={entry["bbox"]}')
    kept = sum(
        min(image['width'], image['height']) >= use.min_size
        and (not use.drops_empty or id in occupied)
        for id, image in images.items()
    )
    objects = len(contents['annotations'])
    return Usage(objects, dropped, broken, len(images), kept, crowded, leaving, found)


def _why_dropped(entry, image, category, wanted, listed):
    if image is None:
        return 'of images that are not listed'
    if category not in wanted:
        return 'of other classes' if category in listed else UNLISTED_CATEGORY
    if entry.get('ignore', False):
        return 'marked "ignore"'
    x, y, width, height = entry['bbox']
    inside_x = min(x + width, image['width']) - max(x, 0)
    inside_y = min(y + height, image['height']) - max(y, 0)
    if width >= 1 and height >= 1 and (inside_x <= 0 or inside_y <= 0):
        return 'outside of their images'
    if entry['area'] <= 0 or width < 1 or height < 1:
        return 'without an area'
    return ''


def _look_at_mask(mask, image):
    """Find why an object is left out because of its mask, and why the mask would end a run."""
    if isinstance(mask, list) and mask:
        # Polygons of too few numbers are left out.
        usable = [p for p in mask if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0]
        if not usable:
            return 'with polygons of too few points', ''
        mask = usable
    return '', mask_mistake(mask, image) if mask else 'has no mask'


def tracked(entries: Sequence, what: str) -> Iterable:
    """Iterate over entries of a file, with a progress bar on stderr if there are many."""
    return track(
        entries,
        f'checking {what}',
        console=Console(stderr=True),
        transient=True,
        disable=len(entries) < LONG,
    )
