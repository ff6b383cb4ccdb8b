"""Whole data sets read: real ones are clean, and of damaged copies each planted fault is named."""

import json
import os
import shutil
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mmctx.datasets.checks.coco.full import plan_coco
from mmctx.datasets.checks.coco.masks import run_lengths
from mmctx.datasets.checks.full_check import problems_of
from mmctx.datasets.checks.image_file import image_problem
from mmctx.datasets.checks.imagenet import plan_imagenet, plan_tiny_imagenet
from mmctx.datasets.checks.kinetics import plan_kinetics
from mmctx.errors import UserError


def problems(plan):
    """Reasons by items; an item may have several."""
    found = list(problems_of(plan, workers=2, seconds=100))
    assert len({tuple(problem) for problem in found}) == len(found)
    return {item: '; '.join(p.reason for p in found if p.item == item) for item, _ in found}


@pytest.fixture
def photo(coco_tiny):
    """Contents of a real JPEG."""
    return sorted((coco_tiny / 'val2017').iterdir())[0].read_bytes()


@pytest.mark.parametrize(
    'damage, problem',
    [
        (lambda photo: photo, ''),
        (lambda photo: photo + b'trailing bytes', ''),
        (lambda photo: photo[: len(photo) // 2], 'is no whole image: image file is truncated'),
        (lambda photo: photo[:-10], 'is no whole image: image file is truncated'),
        (lambda photo: photo[:-2000] + bytes(2000), 'is no whole image: image file is truncated'),
        (lambda photo: photo[:9000] + b'\x5a' * 300 + photo[9300:], 'is damaged: Corrupt JPEG'),
        (lambda photo: b'<html>404</html>', 'is no image'),
        (lambda photo: b'', 'is an empty file'),
    ],
)
def test_damage_to_an_image(photo, tmp_path, damage, problem):
    file = tmp_path / 'photo.jpg'
    file.write_bytes(damage(photo))
    found, size = image_problem(str(file))
    assert found.startswith(problem) and bool(found) == bool(problem)
    assert size == (None if problem else (640, 480))


def test_an_image_that_only_pillow_can_read(tmp_path):
    Image.new('RGB', (8, 8)).save(tmp_path / 'photo.jpg', format='ICO')
    problem, _ = image_problem(str(tmp_path / 'photo.jpg'))
    assert problem == 'is ICO, which OpenCV cannot decode'
    problem, _ = image_problem(str(tmp_path))
    assert problem.startswith('cannot be read')


@pytest.fixture
def coco(coco_tiny, tmp_path):
    """A copy of the validation set that may be damaged."""
    shutil.copytree(coco_tiny / 'val2017', tmp_path / 'val2017', copy_function=shutil.copyfile)
    (tmp_path / 'val2017').chmod(0o755)
    (tmp_path / 'annotations').mkdir()
    name = 'annotations/instances_val2017.json'
    shutil.copyfile(coco_tiny / name, tmp_path / name)
    return tmp_path


def test_coco_as_it_is(coco_tiny):
    plan = plan_coco(coco_tiny)
    assert plan.contents == '160 images, 1520 annotations'
    assert problems(plan) == {}


def test_each_fault_of_a_coco_set_is_named(coco):
    file = coco / 'annotations' / 'instances_val2017.json'
    contents = json.loads(file.read_text())
    images, annotations, categories = (
        contents[part] for part in ('images', 'annotations', 'categories')
    )
    expected = {}

    def image(index, reason):
        expected[f'val2017/{images[index]["file_name"]}'] = reason
        return coco / 'val2017' / images[index]['file_name']

    path = image(0, 'is no whole image: image file is truncated')
    path.write_bytes(path.read_bytes()[:-3000])
    image(1, 'is no image').write_text('Not Found')
    image(2, 'is missing, but listed in annotations/instances_val2017.json').unlink()
    size = images[3]['width'], images[3]['height']
    image(3, f'is {size[0]}x{size[1]}, but listed as {size[0] + 9}x{size[1]}')
    images[3]['width'] += 9
    path = image(4, f'is {images[4]["height"]}x{images[4]["width"]} (turned by its EXIF tag)')
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as picture:
        picture.save(path, exif=exif)

    file_name = 'annotations/instances_val2017.json'
    single = [a for a in annotations if a['iscrowd'] == 0]
    used = (images[index]['id'] for index in range(5))
    single = [a for a in single if a['image_id'] not in set(used)]
    sizes = {i['id']: (i['height'], i['width']) for i in images}

    def annotation(index, reason, **news):
        expected[f'{file_name}: annotation {single[index]["id"]}'] = reason
        single[index].update(news)

    annotation(0, 'has an empty box', bbox=[5, 5, 0, 8])
    annotation(1, 'has a box [1, 1, 9000, 8] that leaves its image of', bbox=[1, 1, 9000, 8])
    annotation(2, 'has category 999, which is not listed', category_id=999)
    annotation(3, 'is of image 123, which is not listed', image_id=123)
    annotation(4, 'has a polygon of 4 numbers, not 6, 8', segmentation=[[1, 1, 5, 5]])
    annotation(5, 'has a mask without polygons', segmentation=[])
    annotation(6, 'has a mask of 8x9 on an image of', segmentation=dict(size=[9, 8], counts=[72]))
    height, width = size = sizes[single[7]['image_id']]
    annotation(
        7,
        f'has a run-length code of 12 of its {height * width} pixels',
        segmentation=dict(size=size, counts=[5, 7]),
    )
    blob = np.zeros((30, 60), np.uint8, order='F')
    blob[10:20, 30:50] = 1
    code = coco_mask.encode(blob)['counts'].decode()
    size = sizes[single[8]['image_id']]
    annotation(
        8,
        f'has a run-length code of 1800 of its {size[0] * size[1]} pixels',
        segmentation=dict(size=size, counts=code),
    )
    size = sizes[single[9]['image_id']]
    annotation(
        9,
        "has a run-length code that is not valid: '!' is no digit",
        segmentation=dict(size=size, counts=code + '!'),
    )
    annotation(10, 'has a polygon that is no list of numbers', segmentation=[[1, 2, None] * 4])

    expected[f'{file_name}: annotations[{annotations.index(single[11])}]'] = "has bbox='[nan, 1"
    single[11]['bbox'] = [float('nan'), 1, 2, 3]
    annotations.append(dict(single[20]))
    expected[f'{file_name}: annotations[{len(annotations) - 1}]'] = (
        f'has the id {single[20]["id"]} of another one'
    )
    annotations.append({k: v for k, v in single[21].items() if k not in ('id', 'bbox')})
    expected[f'{file_name}: annotations[{len(annotations) - 1}]'] = 'has no bbox'
    images.append(dict(images[30], id=77))
    expected[f'{file_name}: images[{len(images) - 1}]'] = (
        f"has the file_name '{images[30]['file_name']}' of another one"
    )
    categories.append(dict(categories[0], name='another name'))
    expected[f'{file_name}: categories[{len(categories) - 1}]'] = (
        f'has the id {categories[0]["id"]} of another one'
    )
    categories.append(dict(id=998, name='Traffic Light'))
    expected[f"{file_name}: categories 'traffic light' and 'Traffic Light'"] = (
        'differ in case or white space alone'
    )
    file.write_text(json.dumps(contents))

    found = problems(plan_coco(coco, ['val2017']))
    # Boxes and crowds' masks fit the sizes that were listed before they were changed.
    assert found.keys() == expected.keys()
    for item, reason in expected.items():
        assert found[item].startswith(reason), item


def test_annotation_files_that_are_no_such(tmp_path):
    with pytest.raises(UserError, match=r'there is no .*instances_\*\.json'):
        plan_coco(tmp_path)
    (tmp_path / 'annotations').mkdir()
    for split, text in dict(cut='{"images": [', list='[]', folder='{}').items():
        (tmp_path / f'annotations/instances_{split}.json').write_text(text)
    with pytest.raises(UserError, match=r'instances_val\.json does not exist'):
        plan_coco(tmp_path, ['val'])
    found = problems(plan_coco(tmp_path))
    assert 'is not readable JSON' in found['annotations/instances_cut.json']
    assert "has no list 'images'" in found['annotations/instances_list.json']
    assert 'which does not exist' in found['annotations/instances_folder.json']


def test_run_lengths_are_those_that_pycocotools_writes():
    rng = np.random.default_rng(0)
    for density in (0.01, 0.2, 0.5, 0.99, 1):
        pixels = np.asfortranarray(rng.random((37, 211)) < density, np.uint8)
        flat = pixels.ravel(order='F')
        borders = np.flatnonzero(np.diff(flat, prepend=0))
        expected = np.diff(borders, prepend=0, append=flat.size)
        assert run_lengths(coco_mask.encode(pixels)['counts'].decode()) == expected.tolist()
    with pytest.raises(ValueError, match='breaks off'):
        run_lengths('T')


@pytest.fixture
def imagenet(shared_data, tmp_path):
    """Real photos of five classes, two in each of their folders."""
    with ZipFile(shared_data / 'imagenet_photos.zip') as photos:
        for index, name in enumerate(sorted(photos.namelist())[:10]):
            folder = f'n{index // 2:08d}'
            for split in ('train', 'val'):
                (tmp_path / split / folder).mkdir(parents=True, exist_ok=True)
                (tmp_path / split / folder / name).write_bytes(photos.read(name))
    return tmp_path


def photo_of(root, folder):
    return sorted((root / folder).iterdir())[0]


def test_each_fault_of_image_folders_is_named(imagenet):
    assert problems(plan_imagenet(imagenet, classes=5)) == {}
    cut = photo_of(imagenet, 'train/n00000000')
    cut.write_bytes(cut.read_bytes()[:999])
    text = photo_of(imagenet, 'val/n00000001')
    text.write_text('a letter')
    grey = photo_of(imagenet, 'val/n00000002')
    assert cv2.imwrite(str(grey), np.zeros((9, 9), np.uint8))
    (imagenet / 'train/n00000001/notes.txt').touch()
    (imagenet / 'train/stray.JPEG').touch()
    shutil.rmtree(imagenet / 'val/n00000003')
    (imagenet / 'train/n00000009').mkdir()
    found = problems(plan_imagenet(imagenet, classes=5))
    expected = {
        cut.relative_to(imagenet).as_posix(): 'is no whole image: image file is truncated',
        text.relative_to(imagenet).as_posix(): 'is no image',
        'train/n00000001/notes.txt': 'is no image by its name',
        'train/stray.JPEG': 'is in no class folder',
        'train': 'has 6 class folders, not 5',
        'val': 'has 4 class folders, not 5',
        'train/n00000009': 'has no images',
        'val/n00000003': 'is no class folder here, but in train',
        'val/n00000009': 'is no class folder here, but in train',
    }
    assert found.keys() == expected.keys()
    assert all(found[item].startswith(reason) for item, reason in expected.items())
    with pytest.raises(UserError, match='does not exist'):
        plan_imagenet(imagenet / 'val')


def test_images_whose_labels_are_listed(imagenet):
    (imagenet / 'meta').mkdir()
    there = sorted(path.relative_to(imagenet / 'val') for path in imagenet.glob('val/*/*'))
    lines = [f'{name} {number}' for number, name in enumerate(there[:4])]
    (imagenet / 'meta/val.txt').write_text('\n'.join([*lines, 'lost.JPEG 3', f'{there[5]} 5', '']))
    found = problems(plan_imagenet(imagenet, ['val'], classes=5))
    assert found.keys() == {'val/lost.JPEG', 'meta/val.txt: line 6'}
    assert 'is missing' in found['val/lost.JPEG']
    assert 'label 5, but 5 classes are numbered from 0' in found['meta/val.txt: line 6']


def test_each_fault_in_archives_of_tiny_imagenet_is_named(shared_data, tmp_path):
    source = shared_data / 'tiny_imagenet' / 'val.zip'
    with ZipFile(source) as given:
        names = sorted(n for n in given.namelist() if n.lower().endswith('.jpeg'))[:120]
        classes = len({name.split('/')[-2] for name in names})
        contents = {name: given.read(name) for name in names}
    for split in ('train', 'val'):
        with ZipFile(tmp_path / f'{split}.zip', 'w') as written:
            for name, content in contents.items():
                written.writestr(name, content)
    assert problems(plan_tiny_imagenet(tmp_path, classes=classes)) == {}
    archive = bytearray((tmp_path / 'val.zip').read_bytes())
    start = archive.find(contents[names[7]])
    archive[start + 300 : start + 310] = bytes(10)
    (tmp_path / 'val.zip').write_bytes(archive)
    with ZipFile(tmp_path / 'train.zip', 'a') as written:
        written.writestr('n99999999/odd.JPEG', contents[names[0]][:700])
    found = problems(plan_tiny_imagenet(tmp_path, classes=classes))
    assert found.keys() == {
        f'val.zip!/{names[7]}',
        'train.zip!/n99999999/odd.JPEG',
        'train',
        'val/n99999999',
    }
    assert 'Bad CRC-32' in found[f'val.zip!/{names[7]}']
    (tmp_path / 'val.zip').write_bytes(archive[:1000])
    with pytest.raises(UserError, match='cannot read val'):
        plan_tiny_imagenet(tmp_path)


def test_each_fault_of_a_video_set_is_named(shared_data, tmp_path):
    clips = sorted(shared_data.glob('videos/*.avi'))[:4]
    (tmp_path / 'videos_val').mkdir()
    for clip in clips:
        os.symlink(clip, tmp_path / 'videos_val' / clip.name)
    lines = [f'{clip.name} {label}' for label, clip in enumerate(clips)]
    file = tmp_path / 'kinetics400_val_list_videos.txt'
    file.write_text('\n'.join(lines))
    assert problems(plan_kinetics(tmp_path, classes=4)) == {}
    (tmp_path / 'videos_val/half.avi').write_bytes(clips[0].read_bytes()[:80_000])
    (tmp_path / 'videos_val/text.avi').write_text('video')
    news = ['half.avi 1', 'text.avi 2', 'lost.avi 0', lines[0], f'{clips[1].name} x', 'a.avi 4']
    file.write_text('\n'.join([*lines, *news]))
    found = problems(plan_kinetics(tmp_path, classes=4))
    where = f'{file.name}: line'
    expected = {
        'videos_val/half.avi': 'is no whole video: it',
        'videos_val/text.avi': 'is no whole video: Invalid data',
        'videos_val/lost.avi': f'is missing, but in line 7 of {file.name}',
        f'{where} 8': f'{clips[0].name} stands in line 1 already',
        f'{where} 9': 'expected a file and the number of its class',
        f'{where} 10': 'label 4, but 4 classes',
    }
    assert found.keys() == expected.keys()
    assert all(found[item].startswith(reason) for item, reason in expected.items()), found
    with pytest.raises(UserError, match=r'train_list_videos\.txt does not exist: write it by'):
        plan_kinetics(tmp_path, ['train'])
    with pytest.raises(UserError, match='does not exist'):
        plan_kinetics(Path(tmp_path / 'videos_val'))
