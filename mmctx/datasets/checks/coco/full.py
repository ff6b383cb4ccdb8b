"""Check of a whole data set in COCO's format."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmctx.datasets.checks.full_check import Item, Plan, Problem
from mmctx.datasets.checks.image_file import image_problem
from mmctx.datasets.checks.missing_files import missing_files
from mmctx.errors import UserError

from .annotation_file import FIELDS, entry_mistake, leaves_image, name_twins, read_json
from .masks import mask_mistake, run_lengths, runs_mistake

CHUNK = 8


class CocoImage(NamedTuple):
    """Facts that an annotation file states about an image.

    Attributes:
        path (str): Path of the image.
        size (tuple[int, int]): Width and height in pixels.
        codes (list[tuple[str, dict]]): Compressed masks, with the names of their annotations.
    """

    path: str
    size: tuple[int, int]
    codes: list


def plan_coco(
    root: Path,
    splits: list[str] | None = None,
    ann_files: Sequence[Path] = (),
    images: Path | None = None,
) -> Plan:
    """Plan a check of annotation files, each with a folder of images.

    Args:
        root (Path): Folder of the data, the COCO_ROOT of the configs.
        splits (list[str], optional): Names of splits; `val2017` means
            `annotations/instances_val2017.json` with the images in `val2017/`. Defaults to None,
            all files with such names.
        ann_files (Sequence[Path]): Annotation files with other names, relative to the root, instead
            of splits. Defaults to none.
        images (Path, optional): Folder of the images of `ann_files`, relative to the root. Defaults
            to None, the root.

    Returns:
        Plan: Check, with the problems of the annotation files.

    Raises:
        UserError: There is no annotation file.
    """
    pairs = [(root / file, root / (images or '.')) for file in ann_files]
    if not pairs:
        if splits is None:
            found = sorted((root / 'annotations').glob('instances_*.json'))
            splits = [path.stem.removeprefix('instances_') for path in found]
        pairs = [(root / 'annotations' / f'instances_{s}.json', root / s) for s in splits]
    if not pairs:
        raise UserError(
            f'there is no {root}/annotations/instances_*.json: name your files with --ann-files '
            'and the folder of their images with --images'
        )
    problems: list[Problem] = []
    items: list[Item] = []
    annotations = 0
    for path, folder in pairs:
        if not path.is_file():
            raise UserError(f'annotation file {path} does not exist')
        file = _AnnotationFile(path, root, folder, problems)
        items += file.items
        annotations += file.annotations
    what = f'{len(items)} images, {annotations} annotations'
    return Plan(what, problems, items, read_coco_image, CHUNK)


class _AnnotationFile:
    """Good entries of a file; what is wrong with the other entries is added to the problems."""

    def __init__(self, path, root, folder, problems):
        self.name = os.path.relpath(path, root)
        self.problems = problems
        self.items, self.annotations = [], 0
        try:
            contents = read_json(path)
        except UserError as error:
            self.report('', str(error))
            return
        images = self.entries(contents, 'images')
        listed = self.entries(contents, 'categories')
        for twins in name_twins(listed):
            names = ' and '.join(repr(twin['name']) for twin in twins)
            self.report(f'categories {names}', 'differ in case or white space alone')
        categories = {category['id'] for category in listed}
        annotations = self.entries(contents, 'annotations')
        self.annotations = len(annotations)
        by_id = {image['id']: image for image in images}
        codes = defaultdict(list)
        for annotation in annotations:
            name = f'annotation {annotation["id"]}'
            mistakes = annotation_mistakes(annotation, by_id, categories)
            for mistake in mistakes:
                self.report(name, mistake)
            mask = annotation.get('segmentation')
            if not mistakes and isinstance(mask, dict) and isinstance(mask['counts'], str):
                codes[annotation['image_id']].append((f'{self.name}: {name}', mask))
        if not folder.is_dir():
            self.report('', f'its images should be in {folder}, which does not exist')
            return
        missing = set(missing_files((image['file_name'] for image in images), folder))
        for image in images:
            name = os.path.relpath(folder / image['file_name'], root)
            if image['file_name'] in missing:
                problems.append(Problem(name, f'is missing, but listed in {self.name}'))
                continue
            size = image['width'], image['height']
            facts = CocoImage(str(folder / image['file_name']), size, codes[image['id']])
            self.items.append(Item(name, facts))

    def report(self, entry, reason):
        self.problems.append(Problem(f'{self.name}: {entry}' if entry else self.name, reason))

    def entries(self, contents, part):
        """Select the entries that are complete and whose ids and names occur once in the file."""
        entries = contents.get(part) if isinstance(contents, dict) else None
        if not isinstance(entries, list):
            self.report('', f'has no list {part!r}')
            return []
        good = []
        fields = FIELDS[part]
        keys = {'images': ('id', 'file_name'), 'categories': ('id', 'name')}.get(part, ('id',))
        seen = {key: set() for key in keys}
        for index, entry in enumerate(entries):
            mistake = entry_mistake(entry, fields)
            if not mistake:
                again = [key for key in keys if entry[key] in seen[key]]
                mistake = f'has the {again[0]} {entry[again[0]]!r} of another one' if again else ''
            if mistake:
                self.report(f'{part}[{index}]', mistake)
                continue
            for key in keys:
                seen[key].add(entry[key])
            good.append(entry)
        return good


def annotation_mistakes(annotation: dict, images: dict, categories: set) -> list[str]:
    """Mistakes in an annotation that has all keys, given the images by id and category ids."""
    mistakes = []
    image = images.get(annotation['image_id'])
    if image is None:
        mistakes.append(f'is of image {annotation["image_id"]}, which is not listed')
    if annotation['category_id'] not in categories:
        mistakes.append(f'has category {annotation["category_id"]}, which is not listed')
    box = annotation['bbox']
    if min(box[2:]) <= 0:
        mistakes.append(f'has an empty box {box}')
    elif image and leaves_image(box, image):
        size = f'{image["width"]}x{image["height"]}'
        mistakes.append(f'has a box {box} that leaves its image of {size}')
    if annotation['area'] <= 0:
        mistakes.append(f'has an area of {annotation["area"]}, so that it is left out')
    if 'segmentation' in annotation:
        mistake = mask_mistake(annotation['segmentation'], image)
        mistakes += [mistake] if mistake else []
    return mistakes


def read_coco_image(item: Item) -> list[Problem]:
    """Find the problems of an image (`facts` is a :class:`CocoImage`) and its compressed masks."""
    path, size, codes = item.facts
    problem, found = image_problem(path)
    if found and found != size:
        turned = ' (turned by its EXIF tag)' if found == size[::-1] else ''
        problem = f'is {found[0]}x{found[1]}{turned}, but listed as {size[0]}x{size[1]}'
    problems = [Problem(item.name, problem)] if problem else []
    for name, code in codes:
        try:
            mistake = runs_mistake(run_lengths(code['counts']), code['size'])
        except UserError as error:
            mistake = f'has a run-length code that is not valid: {error}'
        problems += [Problem(name, mistake)] if mistake else []
    return problems
