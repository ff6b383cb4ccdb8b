"""What the README promises to say in one line, and to take as it is: a table of inputs."""

import codecs
import json
import os

import pytest
from checking import preflight

from mmctx.errors import UserError


def change_annotation(**change):
    """A change of the second of two annotations; None removes a key."""

    def prepare(coco):
        def edit(contents):
            first = contents['annotations'][0]
            second = {**first, 'id': 2, **change}
            contents['annotations'] = [first, {k: v for k, v in second.items() if v is not None}]

        coco.change('train', edit)

    return prepare


def write_marked(mark, encoding):
    """Write the annotations as Windows' programs do."""

    def prepare(coco):
        text = json.dumps(json.loads(coco.ann_file('train').read_text()))
        coco.ann_file('train').write_bytes(mark + text.encode(encoding))

    return prepare


def move(name):
    """Have the data in a folder of a name."""

    def prepare(coco):
        coco.root = coco.root.rename(coco.root.with_name(name))
        os.environ['COCO_ROOT'] = str(coco.root)

    return prepare


def cut(coco):
    coco.ann_file('train').write_text(coco.ann_file('train').read_text()[:-9])


ANNOTATIONS = {
    'as it is': (lambda coco: None, ''),
    "UTF-8's byte order mark": (write_marked(codecs.BOM_UTF8, 'utf-8'), ''),
    "UTF-16's byte order mark": (write_marked(codecs.BOM_UTF16_LE, 'utf-16-le'), ''),
    'an apostrophe in the path': (move("the user's data"), ''),
    'a backslash in the path': (move('data\\set'), ''),
    'quotes and a space in the path': (move('"my" data'), ''),
    'a file that breaks off': (cut, 'is not readable JSON'),
    'no segmentation': (change_annotation(segmentation=None), 'annotations.1. has no mask'),
    'a missing id': (change_annotation(id=None), 'annotations.1. has no id'),
    'runs as they should be': (
        change_annotation(segmentation=dict(size=[48, 64], counts=[60, 4, 3008])),
        '',
    ),
    'an infinite box': (change_annotation(bbox=[1, 1, float('inf'), 1]), 'annotations.1. has bbox'),
}


@pytest.mark.parametrize('case', ANNOTATIONS)
def test_annotations(case, tiny_coco, load):
    prepare, words = ANNOTATIONS[case]
    prepare(tiny_coco)
    if not words:
        preflight(load(), 'train')
        return
    with pytest.raises(UserError, match=words) as caught:
        preflight(load(), 'train')
    assert '\n' not in str(caught.value)
