import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmctx.datasets.shapes import METAINFO, STAMP, render_dataset, render_image
from mmctx.errors import UserError

NUM_IMAGES = {'train': 24, 'val': 9}


def render(root, seed=3, nproc=1, **numbers):
    sizes = {'num_train': NUM_IMAGES['train'], 'num_val': NUM_IMAGES['val'], **numbers}
    return render_dataset(root, seed=seed, nproc=nproc, **sizes)


def contents(root):
    return {file.relative_to(root): file.read_bytes() for file in root.rglob('*') if file.is_file()}


@pytest.fixture(scope='module')
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp('shapes')
    assert render(root)
    return root


def test_same_seed_gives_the_same_bytes_in_any_number_of_processes(rendered, tmp_path):
    render(tmp_path, nproc=2)
    assert contents(tmp_path) == contents(rendered)


def test_an_image_depends_on_seed_split_and_index_alone():
    image, categories, masks = render_image(5, 'val', seed=3)
    render_image(6, 'train', seed=3)
    again, categories_again, masks_again = render_image(5, 'val', seed=3)
    assert np.array_equal(image, again)
    assert categories == categories_again
    assert all(np.array_equal(a, b) for a, b in zip(masks, masks_again))
    for other in (
        render_image(5, 'train', 3),
        render_image(5, 'val', 4),
        render_image(6, 'val', 3),
    ):
        assert not np.array_equal(image, other[0])


@pytest.mark.parametrize('split', ['train', 'val'])
def test_annotations_are_valid_coco(rendered, split):
    coco = COCO(rendered / 'annotations' / f'instances_{split}.json')
    assert [category['name'] for category in coco.dataset['categories']] == [*METAINFO['classes']]
    assert len(coco.imgs) == len(list((rendered / split).iterdir())) == NUM_IMAGES[split]
    assert len(coco.anns) == len(coco.dataset['annotations'])
    assert {entry['category_id'] for entry in coco.anns.values()} == set(coco.cats)
    for image_id, image in coco.imgs.items():
        pixels = cv2.imread(str(rendered / split / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3)
        entries = coco.imgToAnns[image_id]
        assert 1 <= len(entries) <= 5
        masks = np.stack([coco.annToMask(entry) for entry in entries])
        assert masks.sum(axis=0).max() == 1
        for entry, mask in zip(entries, masks):
            rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            x, y, width, height = entry['bbox']
            assert (x, y) == (columns[0], rows[0])
            assert (x + width, y + height) == (columns[-1] + 1, rows[-1] + 1)
            assert entry['area'] == mask.sum() == coco_mask.area(entry['segmentation'])
            assert entry['area'] >= 60
            assert entry['iscrowd'] == 0


def test_sizes_vary_and_are_odd_too(rendered):
    images = COCO(rendered / 'annotations' / 'instances_train.json').imgs.values()
    sides = {side for image in images for side in (image['height'], image['width'])}
    assert len(sides) > 10
    assert {side % 2 for side in sides} == {0, 1}
    assert all(112 <= side <= 160 for side in sides)


def test_masks_lie_where_the_objects_are_painted():
    """Inside its mask an object differs from the same scene's surroundings by a clear contrast."""
    contrasts = []
    for index in range(20):
        image, _, masks = render_image(index)
        for mask in masks:
            mask = mask.astype(np.uint8)
            inside = cv2.erode(mask, np.ones((5, 5))) > 0
            around = (cv2.dilate(mask, np.ones((9, 9))) > 0) & (mask == 0)
            if inside.any() and around.any():
                difference = image[inside].mean(0) - image[around].mean(0)
                contrasts.append(np.abs(difference).max())
    assert np.median(contrasts) > 40


def test_second_call_does_nothing_and_a_damaged_set_is_rendered_again(tmp_path):
    assert render(tmp_path)
    first = contents(tmp_path)
    assert not render(tmp_path)
    (tmp_path / 'train' / '000003.jpg').unlink()
    assert render(tmp_path)
    assert contents(tmp_path) == first
    assert render(tmp_path, num_train=5)
    assert len(list((tmp_path / 'train').iterdir())) == 5


def test_interrupted_set_is_rendered_again(tmp_path):
    assert render(tmp_path)
    stamp = json.loads((tmp_path / STAMP).read_text())
    (tmp_path / STAMP).write_text(json.dumps({**stamp, 'complete': False}))
    assert render(tmp_path)


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / 'holiday.jpg').write_bytes(b'precious')
    with pytest.raises(UserError, match='holds no rendered set'):
        render(tmp_path)
    assert contents(tmp_path) == {Path('train/holiday.jpg'): b'precious'}


@pytest.mark.parametrize('numbers', [{'num_train': 0}, {'num_val': 0}, {'seed': -1}])
def test_numbers_out_of_range(tmp_path, numbers):
    with pytest.raises(ValueError, match='must be at least'):
        render(tmp_path, **numbers)
    assert not any(tmp_path.iterdir())


def test_command_line(run_tool, tmp_path):
    command = ['dataset_converters/render_shapes.py', tmp_path]
    command += ['--num-train', '2', '--num-val', '1', '--nproc', '1']
    first, second = (run_tool(*command, cwd=tmp_path) for _ in range(2))
    assert first.returncode == second.returncode == 0
    assert 'rendered into' in first.stdout
    assert 'already complete' in second.stdout
    broken = run_tool(*command, '--seed', '-1', cwd=tmp_path)
    assert broken.returncode == 2
    (line,) = broken.stderr.splitlines()
    assert line.startswith('error: num_train and num_val must be at least 1')


def test_dataset_class_reads_the_set(rendered):
    mmdet_registry = pytest.importorskip('mmdet.registry')
    dataset = mmdet_registry.DATASETS.build(
        {
            'type': 'mmctx.ShapesDataset',
            'data_root': str(rendered),
            'ann_file': 'annotations/instances_val.json',
            'data_prefix': {'img': 'val/'},
        }
    )
    assert len(dataset) == NUM_IMAGES['val']
    assert dataset.metainfo['classes'] == METAINFO['classes']
    assert len(dataset.metainfo['palette']) == len(METAINFO['classes'])
    # Image i of a split always holds category i % 8, at the bottom of the pile.
    labels = [dataset.get_data_info(i)['instances'][0]['bbox_label'] for i in range(len(dataset))]
    assert labels == [i % 8 for i in range(len(dataset))]
