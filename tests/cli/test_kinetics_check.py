"""Video configs: every mistake in data or weights is named before anything is built."""

import os
from types import SimpleNamespace

import pytest
from checking import preflight
from torch import nn

from mmctx.cli.agreement.classes import check_classes
from mmctx.cli.agreement.listed import check_listed
from mmctx.cli.preflight import Checked
from mmctx.cli.starting_weights import address
from mmctx.datasets.checks import missing_files as files
from mmctx.datasets.checks.missing_files import missing_files
from mmctx.datasets.video import VideoDataset
from mmctx.errors import UserError

CONFIG = 'tsm_resnet50_k400'


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root of Kinetics, its videos empty files, with K400_ROOT naming it."""
    root = tmp_path / 'k400'
    for split in ('train', 'val'):
        for name in ('playing guitar', 'waving'):
            (root / f'videos_{split}' / name).mkdir(parents=True)
            for number in range(3):
                (root / f'videos_{split}' / name / f'{number}.mp4').touch()
        lines = [f'playing guitar/{i}.mp4 0\nwaving/{i}.mp4 399\n' for i in range(3)]
        (root / f'kinetics400_{split}_list_videos.txt').write_text(''.join(lines))
    monkeypatch.setenv('K400_ROOT', str(root))
    return root


def test_a_good_data_set_passes(root, load):
    for mode in ('train', 'test'):
        assert preflight(load(CONFIG), mode).weights == []


def test_missing_root(root, load, monkeypatch):
    monkeypatch.setenv('K400_ROOT', '/no/such/k400')
    with pytest.raises(UserError, match=r'data root /no/such/k400/ .*export K400_ROOT='):
        preflight(load(CONFIG), 'train')


def test_missing_list(root, load):
    (root / 'kinetics400_val_list_videos.txt').unlink()
    with pytest.raises(UserError, match=r'val_list_videos\.txt of val_.*prepare_kinetics\.py ROOT'):
        preflight(load(CONFIG), 'train')


def test_missing_folder(root, load):
    (root / 'videos_val').rename(root / 'val')
    with pytest.raises(UserError, match=r'folder .*videos_val of test_dataloader does not exist'):
        preflight(load(CONFIG), 'test')


@pytest.fixture
def built(root):
    """Build the training set, whose list is read but no video."""

    def built(num_classes=None, **init):
        return VideoDataset(
            'kinetics400_train_list_videos.txt',
            [dict(type='mmctx.PyAVInit', **init)],
            data_root=str(root),
            data_prefix=dict(video='videos_train'),
            num_classes=num_classes,
        )

    return built


def test_missing_videos_are_counted_and_named(root, built):
    check_listed(built(), 'train')
    (root / 'videos_train' / 'playing guitar' / '1.mp4').unlink()
    (root / 'videos_train' / 'waving' / '2.mp4').unlink()
    names = (
        r'2 of the 6 files .* exist: .*/playing guitar/1\.mp4, .*/waving/2\.mp4; .*_kinetics\.py'
    )
    with pytest.raises(UserError, match=names):
        check_listed(built(), 'train')
    # In another store they are not looked for.
    check_listed(built(backend_args=dict(backend='petrel')), 'train')


@pytest.mark.parametrize(
    ('num_classes', 'words'),
    [
        (400, 'cls_head.num_classes is 12, but .* has 400 classes'),
        (None, 'waving/0.mp4 has the label 399 in .*, but model.cls_head.num_classes is 12'),
    ],
)
def test_labels_beyond_the_head(built, num_classes, words):
    model = nn.Module()
    model.cls_head = nn.Module()
    model.cls_head.num_classes = 12
    with pytest.raises(UserError, match=words):
        check_classes(model, dict(train=[built(num_classes)]), Checked([], {}))


def test_each_folder_is_listed_once(tmp_path, monkeypatch):
    names = [f'{n % 400:03d}/{n:06d}.mp4' for n in range(240_000)]
    contents, listed = {}, []
    for name in names[:-1]:
        contents.setdefault(name[:3], []).append(name[4:])
    for folder in contents:
        (tmp_path / folder).mkdir()

    def scandir(folder):
        listed.append(folder)
        names = contents[folder.name]
        return [
            SimpleNamespace(name=name, is_symlink=lambda: False, is_dir=lambda: False)
            for name in names
        ]

    monkeypatch.setattr(files.os, 'scandir', scandir)
    assert missing_files(names, tmp_path) == [names[-1]]
    assert len(listed) == len(set(listed)) == 400


def test_files_and_folders_that_are_missing(tmp_path):
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    (tmp_path / 'a' / 'b' / '1.mp4').touch()
    (tmp_path / '2.mp4').touch()
    assert missing_files(['a/b/1.mp4', '2.mp4'], tmp_path) == []
    assert sorted(missing_files(['a/b/2.mp4', 'c/1.mp4', '2.mp4'], tmp_path)) == [
        'a/b/2.mp4',
        'c/1.mp4',
    ]


def test_pretrained_weights_of_mmaction2s_backbones(root, load, tmp_path):
    with pytest.raises(UserError, match=r'model\.backbone: lost\.pth does not exist'):
        preflight(load(CONFIG, pretrained='lost.pth'), 'train')
    (tmp_path / 'text.pth').write_text('no weights')
    with pytest.raises(UserError, match=r'text\.pth is damaged or not a PyTorch checkpoint'):
        preflight(load(CONFIG, pretrained=str(tmp_path / 'text.pth')), 'train')
    assert preflight(load(CONFIG, pretrained='lost.pth'), 'test').weights == []


def test_torchvisions_weights_have_an_address(root, load, tmp_path, monkeypatch):
    assert address('torchvision://resnet50').startswith('https://')
    assert address('torchvision://resnet50').endswith('.pth')
    assert address('a/b.pth') == 'a/b.pth'
    assert address('torchvision://resnet51') == 'torchvision://resnet51'
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    nowhere = dict(resnet50='http://127.0.0.1:9/w.pth')
    monkeypatch.setattr('mmctx.cli.starting_weights.get_torchvision_models', lambda: nowhere)
    with pytest.raises(UserError, match=r'cannot download http://127\.0\.0\.1:9.*pretrained=None'):
        preflight(load(CONFIG, pretrained='torchvision://resnet50'), 'train')


def test_relative_roots(root, load, monkeypatch):
    monkeypatch.setenv('K400_ROOT', os.path.relpath(root))
    assert preflight(load(CONFIG), 'test').weights == []
