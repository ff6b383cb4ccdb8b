"""Checks of what a built data set lists: files, their labels, and the sizes of images."""

import copy
import os
from collections import defaultdict

from mmctx.datasets.checks.kinetics import PREPARE, reads_video_list
from mmctx.datasets.checks.missing_files import dangling_links, missing_files
from mmctx.errors import UserError, first_few

from .datasets import check_range, class_names, metainfo, name_of, samples_of

# Images whose sizes are compared, of each data set.
SAMPLES = 16


def check_listed(dataset, split: str) -> None:
    """Check that listed files exist, each with one label, in range, or that no link is broken."""
    if not getattr(dataset, 'ann_file', None):
        check_links(getattr(dataset, 'img_prefix', None), split)
        return
    labels, name = defaultdict(set), f'{name_of(dataset)} of {split}_dataloader'
    folders = False
    for sample in samples_of(dataset):
        labels[sample.path].add(sample.labels)
        folders = sample.is_folder
    if not labels:
        return
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', None) or ()
    if not any(getattr(part, 'backend_args', None) for part in (dataset, *steps)):
        local = [os.path.abspath(path) for path in labels if '://' not in path]
        missing = missing_files((path.lstrip(os.sep) for path in local), os.sep, folders)
        if missing:
            videos = reads_video_list(type(dataset))
            hint = f'; "{PREPARE} ROOT" writes lists of the videos that are there'
            raise UserError(
                f'{len(missing)} of the {len(labels)} files that {name} lists do not exist: '
                f'{first_few(os.sep + path for path in missing)}{hint if videos else ""}'
            )
    unclear = sorted(path for path, found in labels.items() if len(found) > 1)
    if unclear:
        numbers = ' and '.join(str(*of) for of in sorted(labels[unclear[0]]))
        raise UserError(
            f'lines of {name} contradict each other for {len(unclear)} files: {unclear[0]} has '
            f'the labels {numbers}'
        )
    classes = class_names(metainfo(dataset))
    limit = len(classes) if classes else getattr(dataset, 'num_classes', None)
    if limit is not None:
        pairs = ((path, n) for path, found in labels.items() for of in found for n in of)
        check_range(pairs, limit, name, f'there are {limit} classes')


def check_links(folder, split: str) -> None:
    """Check that no link in a folder of images on this machine is broken."""
    dangling = dangling_links(folder) if folder and os.path.isdir(folder) else []
    if dangling:
        raise UserError(
            f'{len(dangling)} links in {folder} of {split}_dataloader lead nowhere: '
            f'{first_few(dangling)}'
        )


def check_listed_sizes(dataset, split: str) -> None:
    """Compare some images, evenly spread over a data set, with the sizes that are stated.

    If images were scaled or rotated after the file was written, their boxes and masks are in wrong
    places. `check_dataset.py` checks all images.
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
