"""What the README promises to say in one line, and to take as it is: a table of inputs."""

import codecs
import json
import os

import pytest
import torch
from checking import preflight

from mmctx.errors import UserError
from mmctx.ops import contextual_conv2d


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


def dangling(coco):
    image = coco.root / 'train2017' / 'train3.jpg'
    image.unlink()
    image.symlink_to('nowhere.jpg')


def cut(coco):
    coco.ann_file('train').write_text(coco.ann_file('train').read_text()[:-9])


def add_category(coco):
    coco.change('train', lambda c: c['categories'].append(dict(id=200, name='person')))


def rle(height, width, *counts):
    return change_annotation(segmentation=dict(size=[height, width], counts=list(counts)))


ANNOTATIONS = {
    'as it is': (lambda coco: None, ''),
    "UTF-8's byte order mark": (write_marked(codecs.BOM_UTF8, 'utf-8'), ''),
    "UTF-16's byte order mark": (write_marked(codecs.BOM_UTF16_LE, 'utf-16-le'), ''),
    'an apostrophe in the path': (move("the user's data"), ''),
    'a backslash in the path': (move('data\\set'), ''),
    'quotes and a space in the path': (move('"my" data'), ''),
    'a link that leads nowhere': (dangling, '1 of the 6 images named in .*: train3.jpg'),
    'a file that breaks off': (cut, 'is not readable JSON'),
    'an empty segmentation': (change_annotation(segmentation=[]), 'annotations.1. has no mask'),
    'no segmentation': (change_annotation(segmentation=None), 'annotations.1. has no mask'),
    'a missing id': (change_annotation(id=None), 'annotations.1. has no id'),
    'an id twice': (change_annotation(id=1), '1 ids of annotations stand in it twice: 1'),
    'runs of another size': (rle(8, 8, 60, 4), 'has a mask of 8x8 on an image of 64x48'),
    'runs of too few pixels': (rle(48, 64, 60, 4), 'run-length code of 64 of its 3072 pixels'),
    'runs as they should be': (rle(48, 64, 60, 4, 3008), ''),
    'an infinite box': (change_annotation(bbox=[1, 1, float('inf'), 1]), 'annotations.1. has bbox'),
    'a category twice': (add_category, 'stand in .* twice: person'),
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


ARGUMENTS = {
    'stride=0': (dict(stride=0), 'stride should be at least 1, got 0'),
    "padding='same'": (dict(padding='same'), "whole number of pixels or two, got 'same'"),
    'padding=-1': (dict(padding=-1), 'padding should be at least 0, got -1'),
    'padding=None': (dict(padding=None), 'padding should be a whole number of pixels or two'),
    'dilation=0': (dict(dilation=0), 'dilation should be at least 1, got 0'),
    'stride=1.5': (dict(stride=1.5), 'stride should be a whole number of pixels or two, got 1.5'),
    'three numbers': (dict(padding=(1, 2, 3)), 'padding should be a whole number of pixels or two'),
}


@pytest.mark.parametrize('case', ARGUMENTS)
def test_arguments_of_the_op(case):
    arguments, words = ARGUMENTS[case]
    with pytest.raises(UserError, match=words) as caught:
        contextual_conv2d(torch.zeros(1, 2, 5, 5), torch.zeros(2, 1, 3, 3), **arguments)
    assert '\n' not in str(caught.value)
