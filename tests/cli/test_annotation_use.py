"""What a data set takes of an annotation file, what it leaves out, and what stops a run."""

import pytest
from checking import preflight

from mmctx.errors import UserError


def copies(contents, *changes):
    """Replace the annotations by copies of the first one, each changed."""
    first = contents['annotations'][0]
    contents['annotations'] = [
        {**first, 'id': n, **change} for n, change in enumerate(changes, start=1)
    ]


@pytest.fixture
def refused(tiny_coco, load):
    """The message that a change of the training annotations is refused with."""

    def refused(change, **options):
        tiny_coco.change('train', change)
        with pytest.raises(UserError) as caught:
            preflight(load(**options), 'train')
        assert '\n' not in str(caught.value)
        return str(caught.value)

    return refused


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ([{}, dict(id=1)], ['1 ids of annotations stand in it twice']),
        ([{}, dict(id=None)], ["annotations[1] has id='None'"]),
        ([{}, dict(segmentation=[])], ['1 of the 2 annotations', 'annotations[1] has no mask']),
        ([{}, dict(segmentation=None)], ['annotations[1] has no mask', 'with_mask=True']),
        (
            [{}, dict(segmentation=dict(size=[8, 8], counts=[60, 4]))],
            ['annotations[1] has a mask of 8x8 on an image of 64x48'],
        ),
        (
            [{}, dict(segmentation=dict(size=[48, 64], counts=[60, 4]))],
            ['run-length code of 64 of its 3072 pixels'],
        ),
        ([{}, dict(bbox=[1, 2, float('nan'), 9])], ['annotations[1] has bbox']),
        ([dict(category_id=99), {}, dict(image_id=99, id=2)], ['ids of annotations']),
        ([dict(area=0)], ['no annotation of', '1 are without an area']),
        ([dict(bbox=[1, 2, 0.5, 9])], ['1 are without an area']),
        ([dict(bbox=[100, 100, 9, 9])], ['1 are outside of their images']),
        ([dict(ignore=1)], ['1 are marked "ignore"']),
        ([dict(segmentation=[[1, 2, 3, 4]])], ['1 are with polygons of too few points']),
        (
            [{}, dict(category_id=0)],
            ['1 of the 2 annotations', 'not among its categories: 0 (the file lists 1, 2, 3'],
        ),
        ([dict(iscrowd=1), dict(iscrowd=1)], ['all 2 objects of', 'have iscrowd=1']),
    ],
    ids=str,
)
def test_annotations_that_cannot_be_used(refused, changes, words):
    message = refused(lambda contents: copies(contents, *changes))
    for word in words:
        assert word in message


def test_boxes_alone_need_no_masks(tiny_coco, load):
    tiny_coco.change('train', lambda contents: copies(contents, {}, dict(segmentation=[])))
    cfg = load()
    pipeline = list(cfg.train_dataloader.dataset.pipeline)
    pipeline[1] = dict(type='LoadAnnotations', with_bbox=True)
    cfg.train_dataloader.dataset.pipeline = pipeline
    preflight(cfg, 'train')


def test_no_annotation_is_of_the_classes(refused):
    meta = dict(classes=('dog', 'cat'))
    message = refused(lambda contents: None, train_dataloader__dataset__metainfo=meta)
    assert 'none is of the classes dog, cat (it has person)' in message


def test_no_image_is_left(refused):
    message = refused(lambda contents: None, train_dataloader__dataset__filter_cfg__min_size=100)
    assert 'no image of' in message and 'filter_cfg.min_size=100' in message


def test_a_category_that_stands_in_the_file_twice(refused):
    def twice(contents):
        contents['categories'].insert(0, dict(id=0, name='person'))

    assert 'twice: person (ids 0, 1)' in refused(twice)


def test_a_category_twice_that_the_data_set_does_not_use(tiny_coco, load):
    add = [dict(id=200 + n, name='project') for n in range(2)]
    tiny_coco.change('train', lambda contents: contents['categories'].extend(add))
    preflight(load(), 'train')


def test_ids_of_categories_twice(refused):
    assert '1 ids of categories' in refused(lambda c: c['categories'][0].update(id=2))


def test_a_class_named_twice(refused):
    meta = dict(classes=('person', 'dog', 'person'))
    message = refused(lambda contents: None, train_dataloader__dataset__metainfo=meta)
    assert 'classes of the data set name person twice' in message


def test_what_is_left_out_is_logged_with_its_numbers(tiny_coco, load, monkeypatch):
    logged = []
    monkeypatch.setattr(
        'mmctx.datasets.checks.coco.quick.print_log', lambda text, **_: logged.append(text)
    )
    changes = [{}, {}, dict(area=0), dict(category_id=2), dict(bbox=[1, 2, 9, 0])]
    tiny_coco.change('train', lambda contents: copies(contents, *changes))
    preflight(load(train_dataloader__dataset__metainfo=dict(classes=('person',))), 'train')
    (line,) = [text for text in logged if text.startswith('train_dataloader: ')]
    assert '2 of 5 objects on 1 of 6 images are used' in line
    assert '2 without an area' in line and '1 of other classes' in line


def test_doubts_are_warnings(tiny_coco, load, monkeypatch):
    logged = []
    monkeypatch.setattr(
        'mmctx.datasets.checks.coco.quick.print_log', lambda text, **_: logged.append(text)
    )
    tiny_coco.change('train', lambda c: copies(c, {}, dict(bbox=[40, 20, 60, 40])))
    meta = dict(classes=('person', 'dog'))
    preflight(load(train_dataloader__dataset__metainfo=meta), 'train')
    assert any('1 of 2 boxes leave their images' in text for text in logged)
    assert any('1 of the 2 classes have no object: dog' in text for text in logged)


def twin(name, objects=1):
    def change(contents):
        number = 900 + len(contents['categories'])
        contents['categories'].append(dict(id=number, name=name))
        copies(contents, {}, *[dict(category_id=number)] * objects)

    return change


@pytest.mark.parametrize('name', ['Person', ' person', 'per son'])
def test_a_category_that_is_a_class_but_for_case_or_white_space(refused, name):
    message = refused(twin(name))
    assert message.startswith('1 objects of') and repr(name) in message and "'person'" in message


def test_twins_that_are_meant(tiny_coco, load):
    tiny_coco.change('train', twin('Person', objects=0))
    preflight(load(), 'train')
    tiny_coco.change('train', twin('PERSON'))
    # Both as classes.
    meta = dict(classes=('person', 'PERSON'))
    preflight(load(train_dataloader__dataset__metainfo=meta), 'train')


def again(contents):
    """The first image under a second id as well."""
    contents['images'].append({**contents['images'][0], 'id': 99})


def test_an_image_under_two_ids(refused):
    message = refused(again)
    assert '1 images stand in' in message and 'train0.jpg' in message


def test_an_image_that_is_listed_twice_to_be_seen_twice(tiny_coco, load):
    def both(contents):
        again(contents)
        copies(contents, {}, dict(image_id=99))

    tiny_coco.change('train', both)
    preflight(load(), 'train')
