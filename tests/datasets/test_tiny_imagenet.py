"""Tiny-ImageNet in folders and in archives: the same images, each under its class."""

from zipfile import ZipFile

import cv2
import numpy as np
import pytest
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from mmctx.datasets import SPLITS
from mmctx.datasets.tiny_imagenet import TinyImageNet

WNIDS = ('n00000007', 'n00000001', 'n00000005')
PIPELINE = [dict(type='mmpretrain.LoadImageFromFile'), dict(type='mmpretrain.PackInputs')]


def picture(shade):
    return cv2.imencode('.jpg', np.full((64, 64, 3), shade, np.uint8))[1].tobytes()


def write(root, files):
    for name, contents in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(contents)


def write_zip(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(path, 'w') as archive:
        for name, contents in files.items():
            archive.writestr(name, contents)


@pytest.fixture
def standard(tmp_path):
    """The layout of the original download; the shade of an image tells its class and number."""
    files, annotations = {}, []
    for c, wnid in enumerate(WNIDS):
        for i in range(4):
            image = picture(60 * c + 10 * i)
            files[f'train/{wnid}/images/{wnid}_{i}.JPEG'] = image
            files[f'val/images/val_{c}{i}.JPEG'] = image
            annotations.append(f'val_{c}{i}.JPEG\t{wnid}\t0\t0\t62\t62')
        files[f'train/{wnid}/{wnid}_boxes.txt'] = b'0 0 1 1'
    files['val/val_annotations.txt'] = '\n'.join(annotations).encode()
    files['wnids.txt'] = '\n'.join(WNIDS).encode()
    files['words.txt'] = b'n00000001\tone, first\nn00000005\tfive\nn00000007\tseven\nn9\tnine'
    write(tmp_path / 'standard', files)
    return tmp_path / 'standard'


@pytest.fixture
def zipped(standard, tmp_path):
    """The same images in archives, some of each class in each."""
    for split in ('train', 'val'):
        data = TinyImageNet(str(standard), split)
        members = ({}, {})
        for i in range(len(data)):
            info = data.get_data_info(i)
            with open(info['img_path'], 'rb') as file:
                wnid = sorted(WNIDS)[info['gt_label']]
                name = info['img_path'].rsplit('/', 1)[1]
                members[i % 2][f'{split}/{wnid}/{name}'] = file.read()
        for part, files in enumerate(members):
            write_zip(tmp_path / 'zipped' / f'{split}_{part}.zip', files)
    return tmp_path / 'zipped'


def contents(data):
    """Label and shade of every image, in no order."""
    samples = [data[i] for i in range(len(data))]
    return sorted(
        (int(s['data_samples'].gt_label), int(s['inputs'].float().mean().round())) for s in samples
    )


def test_folders_and_archives_hold_the_same(standard, zipped):
    by_layout = [
        {split: contents(TinyImageNet(str(root), split, pipeline=PIPELINE)) for split in SPLITS}
        for root in (standard, zipped)
    ]
    assert by_layout[0] == by_layout[1]
    assert by_layout[0]['train'] == by_layout[0]['val']
    # Sorted, class n00000001 is the second that was written.
    expected = [(label, 60 * c + 10 * i) for label, c in enumerate((1, 2, 0)) for i in range(4)]
    for (label, shade), (expected_label, expected_shade) in zip(by_layout[0]['val'], expected):
        assert label == expected_label and abs(shade - expected_shade) <= 1
    named, numbered = (TinyImageNet(str(root), 'val').CLASSES for root in (standard, zipped))
    assert named == ('one, first', 'five', 'seven')
    assert numbered == tuple(sorted(WNIDS))


def test_workers_read_the_archives_side_by_side(shared_data):
    data = TinyImageNet(str(shared_data / 'tiny_imagenet'), 'val', indices=600, pipeline=PIPELINE)
    alone = [data[i]['inputs'] for i in range(len(data))]
    loader = DataLoader(data, batch_size=8, num_workers=2, collate_fn=pseudo_collate)
    together = [image for batch in loader for image in batch['inputs']]
    assert len(together) == 600
    assert all((a == b).all() for a, b in zip(alone, together))


def test_the_real_set(shared_data):
    root = shared_data / 'tiny_imagenet'
    names = dict(line.split('\t') for line in (root / 'classes.tsv').read_text().splitlines())
    for split, per_class in (('train', 240), ('val', 50)):
        data = TinyImageNet(str(root), split, pipeline=PIPELINE)
        labels = data.get_gt_labels()
        assert np.bincount(labels).tolist() == [per_class] * 200
        for i in range(0, len(data), 4999):
            info = data.get_data_info(i)
            assert f'/{sorted(names)[info["gt_label"]]}/' in info['img_path']
            assert data[i]['inputs'].shape == (3, 64, 64)
        assert list(data.CLASSES) == [names[wnid] for wnid in sorted(names)]


@pytest.mark.parametrize(
    'broken', [b'', b'no picture', picture(9)[:30]], ids=['empty', 'text', 'header']
)
def test_a_broken_image_is_named_or_skipped(broken, standard):
    name = 'train/n00000001/images/n00000001_2.JPEG'
    write(standard, {name: broken})
    data = TinyImageNet(str(standard), pipeline=PIPELINE)
    with pytest.raises(ValueError, match=r'n00000001_2\.JPEG is not a readable image'):
        data[2]
    skipping = TinyImageNet(str(standard), pipeline=PIPELINE, skip_broken=True)
    assert skipping[2]['data_samples'].img_path != str(standard / name)


def test_a_broken_member_of_an_archive_is_named(standard, tmp_path):
    image = picture(1)
    files = {f'train/{wnid}/a.JPEG': image for wnid in WNIDS}
    write_zip(tmp_path / 'z' / 'train.zip', {**files, 'train/n00000001/a.JPEG': image[:40]})
    data = TinyImageNet(str(tmp_path / 'z'), pipeline=PIPELINE)
    with pytest.raises(ValueError, match=r'train\.zip!/train/n00000001/a.JPEG is not a readable'):
        data[0]


def test_a_fault_of_the_pipeline_is_not_blamed_on_the_image(standard):
    def fault(results):
        raise RuntimeError('of the pipeline')

    data = TinyImageNet(str(standard), pipeline=[fault], skip_broken=True)
    with pytest.raises(RuntimeError, match='of the pipeline'):
        data[0]


def test_names_what_is_wrong_with_the_classes(standard, tmp_path):
    for image in (standard / 'train' / 'n00000005' / 'images').iterdir():
        image.unlink()
    with pytest.raises(ValueError, match=r'1 of the 3 classes have no images in train .*n00000005'):
        TinyImageNet(str(standard))
    write(standard, {'train/n00000005/a.jpg': b'', 'train/n00000009/a.jpg': b''})
    with pytest.raises(ValueError, match='not among its 3: n00000009'):
        TinyImageNet(str(standard))
    with pytest.raises(ValueError, match='neither'):
        TinyImageNet(str(tmp_path / 'nowhere'))


def test_unknown_splits_and_missing_data_are_refused(standard):
    with pytest.raises(ValueError, match='has the label 2, but there are 2 classes'):
        TinyImageNet(str(standard), metainfo=dict(classes=('a', 'b')))
    with pytest.raises(ValueError, match='split'):
        TinyImageNet(str(standard), 'test')
    with pytest.raises(ValueError, match='skip_broken'):
        TinyImageNet(str(standard), split='val', skip_broken=True)
