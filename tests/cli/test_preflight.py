"""Every mistake in data or weights is named before anything is trained."""

import pytest
import torch
from checking import preflight

from mmctx.checkpoints.fitting import Weights
from mmctx.cli.preflight import leaf_datasets
from mmctx.errors import UserError


def test_a_good_data_set_passes(tiny_coco, load):
    assert preflight(load(), 'train').weights == []


def test_missing_data_root_names_the_path_and_the_variable(tmp_path, monkeypatch, load):
    monkeypatch.setenv('COCO_ROOT', str(tmp_path / 'nowhere'))
    with pytest.raises(UserError, match=rf'{tmp_path}/nowhere/.*export COCO_ROOT=') as caught:
        preflight(load(), 'train')
    assert 'train_dataloader' in str(caught.value)


def test_missing_data_root_without_the_variable(tmp_path, monkeypatch, load):
    monkeypatch.delenv('COCO_ROOT', raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf'data/coco/ \(in {tmp_path}\).*COCO_ROOT \(now not set'):
        preflight(load(), 'test')


@pytest.mark.parametrize('split', ['train', 'val'])
def test_missing_annotation_file(tiny_coco, load, split):
    tiny_coco.ann_file(split).unlink()
    with pytest.raises(UserError, match=f'instances_{split}2017.json of {split}_dataloader'):
        preflight(load(), 'train')


def test_missing_image_folder(tiny_coco, load):
    (tiny_coco.root / 'val2017').rename(tiny_coco.root / 'elsewhere')
    with pytest.raises(UserError, match=r'folder .*val2017/ of test_dataloader does not exist'):
        preflight(load(), 'test')


def test_evaluator_with_an_annotation_file_of_its_own(tiny_coco, load):
    with pytest.raises(UserError, match=r'other.json .* of val_evaluator'):
        preflight(load(val_evaluator__ann_file='other.json'), 'train')


@pytest.mark.parametrize('text', ['', 'no json', '[1, 2]', '{"images": []}', '{"images": {}}'])
def test_annotation_file_that_is_not_coco(tiny_coco, load, text):
    tiny_coco.ann_file('train').write_text(text)
    with pytest.raises(UserError, match=r'annotation file .*instances_train2017.json'):
        preflight(load(), 'train')


@pytest.mark.parametrize('part', ['images', 'annotations', 'categories'])
def test_annotation_file_without_a_part(tiny_coco, load, part):
    tiny_coco.change('val', lambda contents: contents.pop(part))
    with pytest.raises(UserError, match=f"instances_val2017.json .*no list '{part}'"):
        preflight(load(), 'test')


def test_annotation_without_a_box(tiny_coco, load):
    tiny_coco.change('val', lambda contents: contents['annotations'][0].pop('bbox'))
    with pytest.raises(UserError, match=r'annotations\[0\] has no bbox'):
        preflight(load(), 'test')


@pytest.mark.parametrize(
    ('part', 'change', 'message'),
    [
        ('annotations', dict(iscrowd=None), r"annotations\[0\] has iscrowd='None'"),
        ('annotations', dict(bbox=[1, 2, 3]), r"annotations\[0\] has bbox='\[1, 2, 3\]'"),
        ('annotations', dict(segmentation='x'), r'annotations\[0\] has a mask that is neither'),
        ('annotations', dict(category_id=4711), 'no annotation is of an image and a category'),
        ('annotations', dict(image_id=4711), 'no annotation is of an image and a category'),
        ('images', dict(width='640'), r"images\[0\] has width='640'"),
        ('images', dict(file_name=5), r"images\[0\] has file_name='5'"),
        ('images', dict(id=1), '1 ids of images stand in it twice: 1'),
        ('categories', dict(name=3), r"categories\[0\] has name='3'"),
    ],
)
def test_values_of_another_kind(tiny_coco, load, part, change, message):
    tiny_coco.change('train', lambda contents: contents[part][0].update(change))
    with pytest.raises(UserError, match=message):
        preflight(load(), 'train')


def test_images_alone_suffice_where_predictions_are_only_written(tiny_coco, load):
    tiny_coco.change('val', lambda contents: contents.pop('annotations'))
    cfg = load(test_evaluator__format_only=True, test_evaluator__outfile_prefix='x')
    assert preflight(cfg, 'test').weights == []


def test_missing_images_are_named_and_counted(tiny_coco, load):
    for i in range(5):
        (tiny_coco.root / 'train2017' / f'train{i}.jpg').unlink()
    with pytest.raises(UserError) as caught:
        preflight(load(), 'train')
    assert str(caught.value).startswith('5 of the 6 images')
    assert str(caught.value).endswith('train0.jpg, train1.jpg, train2.jpg and 2 more')


def test_an_image_that_is_a_link_to_nowhere(tiny_coco, load):
    image = tiny_coco.root / 'train2017' / 'train3.jpg'
    image.unlink()
    image.symlink_to('/nowhere/train3.jpg')
    with pytest.raises(UserError, match=r'1 of the 6 images .*: train3.jpg'):
        preflight(load(), 'train')


def test_categories_of_another_data_set(tiny_coco, load):
    tiny_coco.change('train', lambda contents: contents['categories'][0].update(name='mensch'))
    with pytest.raises(UserError, match=r'1 of the 80 classes .*: person \(the file has'):
        preflight(load(), 'train')


def test_own_classes(tiny_coco, load):
    meta = dict(classes=('mensch',))
    with pytest.raises(UserError, match=r'1 of the 1 classes .*: mensch'):
        preflight(load(train_dataloader__dataset__metainfo=meta), 'train')
    meta = dict(classes=('person', 'dog'))
    assert preflight(load(train_dataloader__dataset__metainfo=meta), 'train').weights == []


def test_wrapped_data_sets_are_checked(tiny_coco, load):
    cfg = load()
    leaf = cfg.train_dataloader.dataset
    lost = dict(leaf, data_prefix=dict(img='lost/'))
    pair = dict(type='ConcatDataset', datasets=[leaf, lost])
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=pair)
    assert leaf_datasets(cfg.train_dataloader.dataset) == [leaf, lost]
    with pytest.raises(UserError, match=r'folder .*lost/ of train_dataloader'):
        preflight(cfg, 'train')


def test_missing_pretrained_weights_say_what_to_do(tiny_coco, load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = 'mask_rcnn_ctx_convnext_t_coco'
    with pytest.raises(UserError) as caught:
        preflight(load(name, pretrained='lost.pth'), 'train')
    for words in ('lost.pth does not exist', 'Train Contextual', 'pretrained=FILE', '=None'):
        assert words in str(caught.value)


def test_unreachable_pretrained_weights(tiny_coco, load, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(UserError, match=r'cannot download http://127.0.0.1:9/w.pth.*pretrained=No'):
        preflight(load(pretrained='http://127.0.0.1:9/w.pth'), 'train')


def test_pretrained_weights_are_not_needed_for_testing(tiny_coco, load, tmp_path):
    path = tmp_path / 'model.pth'
    torch.save({'state_dict': {'a': torch.zeros(2)}}, path)
    (weights,) = preflight(load(pretrained='lost.pth', load_from=str(path)), 'test').weights
    assert weights == Weights(str(path), {'a': (2,)}, '', True)


def test_pretrained_weights_of_another_layout(tiny_coco, load, tmp_path):
    path = tmp_path / 'bare.pth'
    torch.save({'model': {'stages.0.weight': torch.zeros(2)}}, path)
    with pytest.raises(UserError, match=r"bare.pth .*'backbone.'"):
        preflight(load(pretrained=str(path)), 'train')


@pytest.mark.parametrize('kind', ['missing', 'empty', 'text', 'truncated', 'list', 'no weights'])
@pytest.mark.parametrize('resume', [False, True])
def test_unusable_checkpoint(tiny_coco, load, tmp_path, kind, resume):
    path = tmp_path / 'model.pth'
    torch.save({'state_dict': {'weight': torch.zeros(1000)}, 'meta': {}}, path)
    if kind == 'missing':
        path.unlink()
    elif kind == 'empty':
        path.write_bytes(b'')
    elif kind == 'text':
        path.write_text('<html>404</html>')
    elif kind == 'truncated':
        path.write_bytes(path.read_bytes()[:3000])
    else:
        torch.save([1] if kind == 'list' else {'state_dict': {}}, path)
    with pytest.raises(UserError, match=r'model.pth'):
        preflight(load(load_from=str(path), resume=resume), 'train')


def test_resuming_needs_a_training_state(tiny_coco, load, tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save({'state_dict': {'weight': torch.zeros(2)}}, path)
    with pytest.raises(UserError, match=r'holds no training state .*load_from='):
        preflight(load(load_from=str(path), resume=True), 'train')


def test_automatic_resume_looks_at_the_last_checkpoint(tiny_coco, load, tmp_path):
    options = dict(resume=True, work_dir=str(tmp_path / 'run'))
    assert preflight(load(**options), 'train').weights == []
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(tmp_path / 'run' / 'epoch_1.pth'))
    with pytest.raises(UserError, match=r'epoch_1.pth does not exist'):
        preflight(load(**options), 'train')


def test_real_annotations_pass(coco_tiny, monkeypatch, load):
    monkeypatch.setenv('COCO_ROOT', str(coco_tiny))
    assert preflight(load(), 'train').weights == []
