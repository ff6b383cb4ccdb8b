"""Quick check of a data set in COCO's format: its annotation file, its use, and its images."""

import logging
from collections import Counter
from collections.abc import Sequence

from mmengine.logging import print_log

from mmctx.datasets.checks.dataset_files import DatasetFiles
from mmctx.datasets.checks.missing_files import missing_files
from mmctx.errors import UserError, first_few
from mmctx.registry import base_named

from .annotation_file import (
    FIELDS,
    contradicting_images,
    entry_mistake,
    name_twins,
    read_json,
    repeated,
)
from .usage import UNLISTED_CATEGORY, Usage, Use, tracked, usage_of


def quick_check(files: DatasetFiles) -> None:
    """Check a data set whose class reads COCO's files in the way of mmdet's `CocoDataset`.

    What the data set uses of the file is logged, with the number of objects that it leaves out.

    Args:
        files (DatasetFiles): Files of a data set; data sets of other kinds are not checked.

    Raises:
        UserError: There is a mistake; the message names the first one.
    """
    config, path = files.config, files.ann_file
    if not path or not reads_plain_coco(files.cls):
        return
    contents = read_coco(path, files.annotations_needed)
    classes = files.classes if isinstance(files.classes, (list, tuple)) else None
    check_categories(contents, path, classes)
    check_images(contents, path, files.folders.get('img', files.root))
    if not files.annotations_needed:
        return
    filtered = (not config.get('test_mode', False) and config.get('filter_cfg')) or {}
    masks = any(step.get('with_mask') for step in config.get('pipeline') or ())
    use = Use(
        files.loader,
        classes,
        masks,
        bool(filtered.get('filter_empty_gt')),
        filtered.get('min_size', 0),
    )
    check_usage(contents, path, use)


def reads_plain_coco(cls: type | None) -> bool:
    """Whether a class reads COCO's files in the way of mmdet's `CocoDataset`."""
    coco = base_named(cls, 'CocoDataset')
    return coco is not None and all(
        getattr(cls, name) is getattr(coco, name) for name in ('load_data_list', 'parse_data_info')
    )


def read_coco(path, annotations_needed=True):
    """Read an annotation file, and refuse a file that is not in COCO's format.

    Args:
        path (str | Path): Path of the annotation file.
        annotations_needed (bool): Whether the file has to contain annotations; a test set that is
            only predicted has none. Defaults to True.

    Returns:
        dict: Contents of the file.

    Raises:
        UserError: The file is not JSON, an entry lacks a key or has a value of another kind, an id
            occurs twice, or no annotation belongs to an image and a category in the file.
    """
    print_log(f'checking {path}', logger='current')
    contents = read_json(path)
    problem = f'annotation file {path} is not in COCO format:'
    for part, fields in FIELDS.items():
        if part == 'annotations' and not annotations_needed:
            continue
        entries = contents.get(part) if isinstance(contents, dict) else None
        if not isinstance(entries, list):
            raise UserError(f'{problem} it has no list {part!r}')
        for index, entry in enumerate(tracked(entries, part)):
            mistake = entry_mistake(entry, fields)
            if mistake:
                raise UserError(f'{problem} {part}[{index}] {mistake}')
        twice = repeated(entry['id'] for entry in entries)
        if twice:
            raise UserError(
                f'{problem} {len(twice)} ids of {part} stand in it twice: {first_few(twice)}'
            )
    ids = {image['id'] for image in contents['images']}
    if not ids:
        raise UserError(f'annotation file {path} lists no images')
    if annotations_needed:
        categories = {category['id'] for category in contents['categories']}
        if not any(
            a['image_id'] in ids and a['category_id'] in categories for a in contents['annotations']
        ):
            raise UserError(f'{problem} no annotation is of an image and a category that it lists')
    return contents


def check_images(contents, path, folder):
    """Check that every image of a file exists in a folder, by listing each folder once."""
    missing = missing_files((image['file_name'] for image in contents['images']), folder)
    if missing:
        raise UserError(
            f'{len(missing)} of the {len(contents["images"])} images named in {path} are not in '
            f'{folder}: {first_few(missing)}'
        )


def check_categories(contents: dict, path: str, classes: Sequence[str] | None) -> None:
    """Check that each class that the data set names occurs exactly once in the file.

    Objects of a class that is missing or occurs twice would silently be dropped or get the label of
    another class.
    """
    names = [category['name'] for category in contents['categories']]
    twice = repeated(classes or ())
    if twice:
        raise UserError(f'the classes of the data set name {first_few(twice)} twice')
    missing = [name for name in classes or () if name not in names]
    if classes and missing:
        raise UserError(
            f'{len(missing)} of the {len(classes or ())} classes of the data set are not among the '
            f'categories of {path}: {first_few(missing)} (the file has: {first_few(names)}); name '
            'your own classes with metainfo=dict(classes=(...)) in every dataset of the config'
        )
    twice = [name for name in repeated(names) if classes is None or name in classes]
    if twice:
        ids = [c['id'] for c in contents['categories'] if c['name'] == sorted(twice)[0]]
        raise UserError(
            f'{len(twice)} names of categories stand in {path} twice: {first_few(twice)} (ids '
            f'{first_few(ids)}); remove all but the one that the annotations have'
        )
    check_twins(contents, path, names if classes is None else classes)


def check_twins(contents: dict, path: str, classes: Sequence[str]) -> None:
    """Check that no objects are left out as a name differs from a class only in case or space."""
    for twins in name_twins(contents['categories']):
        taken = [twin['name'] for twin in twins if twin['name'] in classes]
        others = {twin['id']: twin['name'] for twin in twins if twin['name'] not in classes}
        count = sum(a['category_id'] in others for a in contents.get('annotations') or ())
        if taken and count:
            raise UserError(
                f'{count} objects of {path} are of the category {next(iter(others.values()))!r}, '
                f'which is the class {taken[0]!r} but for case or white space, and would be left '
                'out: give both one id and name, or name both as classes'
            )


def check_usage(contents: dict, path: str, use: Use) -> None:
    """Log what a data set uses of a file; refuse one without usable objects, images or masks."""
    usage = usage_of(contents, use)
    check_identities(contents, path, usage)
    if not usage.used:
        raise UserError(
            f'no annotation of {path} can be used: {nothing_left(contents, use, usage)}'
        )
    if usage.broken_masks:
        raise UserError(
            f'{len(usage.broken_masks)} of the {usage.objects} annotations of {path} have masks '
            f'that cannot be loaded, and the pipeline has with_mask=True: {usage.broken_masks[0]}; '
            'mend or remove them, or train a model of boxes alone'
        )
    if not usage.kept_images:
        raise UserError(
            f'no image of {path} is left for {use.name}: all {usage.images} are smaller than '
            f'filter_cfg.min_size={use.min_size} or have no object of its classes'
        )
    if usage.crowded == usage.used:
        raise UserError(
            f'all {usage.used} objects of {path} that {use.name} takes have iscrowd=1, which marks '
            'where not to look: set it to 0 for objects to learn and to find'
        )
    print_log(f'{use.name}: {usage} of {path}', logger='current')
    for warning in doubts(contents, use, usage):
        print_log(f'{use.name}: {warning}', logger='current', level=logging.WARNING)


def check_identities(contents: dict, path: str, usage: Usage) -> None:
    """Check that objects are of listed categories, and no image has other objects under two ids.

    If a category is not listed, the numbers of the others may be wrong too.
    """
    if usage.dropped[UNLISTED_CATEGORY]:
        listed = {category['id'] for category in contents['categories']}
        unknown = {a['category_id'] for a in contents['annotations']} - listed
        raise UserError(
            f'{usage.dropped[UNLISTED_CATEGORY]} of the {usage.objects} annotations of {path} have '
            f'a category_id that is not among its categories: {first_few(unknown)} (the file '
            f'lists {first_few(listed)}); number both alike, or remove these annotations'
        )
    contradicting = contradicting_images(contents)
    if contradicting:
        raise UserError(
            f'{len(contradicting)} images stand in {path} under several ids, with other objects '
            f'under each: {first_few(contradicting)}; join their entries'
        )


def doubts(contents: dict, use: Use, usage: Usage) -> list[str]:
    """Warnings about what may be intended, but rarely is."""
    found = []
    if usage.leaving:
        found.append(
            f'{len(usage.leaving)} of {usage.used} boxes leave their images, though bbox is x, y, '
            f'width and height: {usage.leaving[0]}'
        )
    names = {c['name'] for c in contents['categories'] if c['id'] in usage.categories}
    missing = [name for name in use.classes or () if name not in names]
    if missing and use.name.startswith('train'):
        found.append(
            f'{len(missing)} of the {len(use.classes or ())} classes have no object: '
            f'{first_few(missing)}'
        )
    return found


def nothing_left(contents, use, usage):
    """Explain why nothing of a file can be used."""
    if set(usage.dropped) == {'of other classes'}:
        names = {category['id']: category['name'] for category in contents['categories']}
        there = Counter(names.get(a['category_id']) for a in contents['annotations'])
        return (
            f'none is of the classes {", ".join(use.classes)} (it has '
            f'{", ".join(str(name) for name, _ in there.most_common(3))})'
        )
    return ', '.join(f'{count} are {reason}' for reason, count in usage.dropped.most_common())
