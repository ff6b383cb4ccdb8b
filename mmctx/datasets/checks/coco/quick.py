"""The quick check: is the annotation file COCO's, and are its images there?"""

from mmctx.datasets.checks.dataset_files import DatasetFiles
from mmctx.datasets.checks.missing_files import missing_files
from mmctx.errors import UserError, first_few

from .annotation_file import FIELDS, entry_mistake, is_mask, read_json

STRIDE = 32


def quick_check(files: DatasetFiles) -> None:
    """Check a data set whose class reads COCO's files just as mmdet's `CocoDataset` does.

    Args:
        files (DatasetFiles): The files of a data set; other kinds are passed over.

    Raises:
        UserError: At the first mistake.
    """
    config, path = files.config, files.ann_file
    if not path or not reads_plain_coco(files.cls):
        return
    needed = files.annotations_needed
    with_masks = any(step.get('with_mask') for step in config.get('pipeline') or ())
    contents = read_coco(path, needed, needed and with_masks)
    if isinstance(files.classes, (list, tuple)):
        check_categories(contents, path, files.classes)
    check_images(contents, path, files.folders.get('img', files.root))
    filtered = not config.get('test_mode', False) and config.get('filter_cfg')
    check_sizes(contents, path, filtered.get('min_size', 0) if filtered else 0)


def reads_plain_coco(cls: type | None) -> bool:
    """Whether a class reads COCO's files just as mmdet's `CocoDataset` does."""
    coco = next((c for c in getattr(cls, '__mro__', ()) if c.__name__ == 'CocoDataset'), None)
    return coco is not None and all(
        getattr(cls, name) is getattr(coco, name) for name in ('load_data_list', 'parse_data_info')
    )


def read_coco(path, annotations_needed=True, masks_needed=False):
    """Read an annotation file and refuse what is not in COCO's format.

    Args:
        path (str | Path): The annotation file.
        annotations_needed (bool): Whether it must hold annotations; a test set that is only
            predicted has none. Defaults to True.
        masks_needed (bool): Whether each annotation must have a mask. Defaults to False.

    Returns:
        dict: The contents.

    Raises:
        UserError: If it is not JSON, an entry lacks a key or has a value of another kind, an image
            stands in it twice, or no annotation is of an image and a category in it.
    """
    contents = read_json(path)
    problem = f'annotation file {path} is not in COCO format:'
    for part, fields in FIELDS.items():
        if part == 'annotations' and not annotations_needed:
            continue
        entries = contents.get(part) if isinstance(contents, dict) else None
        if not isinstance(entries, list):
            raise UserError(f'{problem} it has no list {part!r}')
        if part == 'annotations' and masks_needed:
            fields = dict(fields, segmentation=is_mask)
        for index, entry in enumerate(entries):
            mistake = entry_mistake(entry, fields)
            if mistake:
                raise UserError(f'{problem} {part}[{index}] {mistake}')
    ids = {image['id'] for image in contents['images']}
    if not ids:
        raise UserError(f'annotation file {path} lists no images')
    if len(ids) < len(contents['images']):
        raise UserError(
            f'{problem} {len(contents["images"]) - len(ids)} image ids stand in it twice'
        )
    if annotations_needed:
        categories = {category['id'] for category in contents['categories']}
        if not any(
            a['image_id'] in ids and a['category_id'] in categories for a in contents['annotations']
        ):
            raise UserError(f'{problem} no annotation is of an image and a category that it lists')
    return contents


def check_images(contents, path, folder):
    """Check that every image is there; each folder is listed once, no file is looked up singly.

    Args:
        contents (dict): Contents of the annotation file.
        path (str | Path): The annotation file, for messages.
        folder (str | Path): Folder that the file names of the images start from.

    Raises:
        UserError: If images are missing; names the first few and their number.
    """
    missing = missing_files((image['file_name'] for image in contents['images']), folder)
    if missing:
        raise UserError(
            f'{len(missing)} of the {len(contents["images"])} images named in {path} are not in '
            f'{folder}: {first_few(missing)}'
        )


def check_categories(contents, path, classes):
    """Check that the file has every class that the data set names.

    A class that it lacks would be dropped without a word, and all later labels would shift.

    Args:
        contents (dict): Contents of the annotation file.
        path (str | Path): The annotation file, for messages.
        classes (sequence of str): Class names of the data set.

    Raises:
        UserError: If a class is missing.
    """
    names = [category['name'] for category in contents['categories']]
    missing = [name for name in classes if name not in names]
    if missing:
        raise UserError(
            f'{len(missing)} of the {len(classes)} classes of the data set are not among the '
            f'categories of {path}: {first_few(missing)} (the file has: {first_few(names)}); name '
            'your own classes with metainfo=dict(classes=(...)) in every dataset of the config'
        )


def check_sizes(contents, path, dropped_below=0):
    """Check that no image is smaller than the network's stride.

    Args:
        contents (dict): Contents of the annotation file.
        path (str | Path): The annotation file, for messages.
        dropped_below (int): Images whose shorter side is below this many pixels are left out by
            the data set itself. Defaults to 0.

    Raises:
        UserError: If an image that is used has a side below the stride.
    """
    small = [
        f'{image["file_name"]} ({image["width"]}x{image["height"]})'
        for image in contents['images']
        if dropped_below <= min(image['width'], image['height']) < STRIDE
    ]
    if small:
        raise UserError(
            f"{len(small)} images in {path} are smaller than the network's stride of {STRIDE} "
            f'pixels: {first_few(small)}; take them out of the annotation file'
        )
