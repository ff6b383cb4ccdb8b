"""COCO's annotation files as mmdet reads them, in data sets and metrics alike.

mmdet numbers the labels in the order of the categories in the *file*, but assumes that it is the
order of `classes`. If the orders differ, each file has its own labels, and a network is silently
trained with the labels of one file and scored with those of another. pycocotools cannot read a file
that begins with a byte order mark, as programs on Windows write it.
"""

import json

from mmctx.text import MARKS

from .after_import import after_import

API = 'mmdet.datasets.api_wrappers.coco_api'


def install():
    """Let mmdet number labels by name, and read files with a byte order mark. Idempotent."""
    after_import(API, _mend)


def _mend(module):
    find_ids, init = module.COCO.get_cat_ids, module.COCO.__init__
    if find_ids.__module__ == __name__:
        return

    def get_cat_ids(self, cat_names=(), sup_names=(), cat_ids=()):
        found = find_ids(self, cat_names, sup_names, cat_ids)
        if isinstance(cat_names, str) or not cat_names:
            return found
        place = {name: place for place, name in enumerate(cat_names)}
        return sorted(found, key=lambda id: place[self.cats[id]['name']])

    def __init__(self, annotation_file=None):
        if annotation_file is None or not _is_marked(annotation_file):
            init(self, annotation_file)
            return
        init(self)
        with open(annotation_file, 'rb') as file:
            self.dataset = json.loads(file.read())
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    module.COCO.get_cat_ids, module.COCO.__init__ = get_cat_ids, __init__


def _is_marked(path):
    with open(path, 'rb') as file:
        return file.read(4).startswith(MARKS)
