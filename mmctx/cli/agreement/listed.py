"""Checks of lists of files and labels, as a built data set has read them."""

import os
from collections import defaultdict

from mmctx.datasets.checks.missing_files import dangling_links, missing_files
from mmctx.errors import UserError, first_few

from .datasets import check_range, class_names, metainfo, name_of, samples_of


def check_listed(dataset, split: str) -> None:
    """Check that the files of a data set with a list exist and that its labels are possible.

    Args:
        dataset (Dataset): The data set, without wrappers.
        split (str): 'train', 'val' or 'test', for messages.

    Raises:
        UserError: Files are missing, a file has two labels, or a label is out of range.
    """
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
    if not getattr(dataset, 'backend_args', None):
        local = [os.path.abspath(path) for path in labels if '://' not in path]
        missing = missing_files((path.lstrip(os.sep) for path in local), os.sep, folders)
        if missing:
            raise UserError(
                f'{len(missing)} of the {len(labels)} files that {name} lists do not exist: '
                f'{first_few(os.sep + path for path in missing)}'
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
