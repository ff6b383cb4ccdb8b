"""Data, model, metrics and loaders that contradict each other are refused before anything runs."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mmctx.cli.config import load_config
from mmctx.cli.running import build_runner, run
from mmctx.cli.switches import set_testing, set_training
from mmctx.errors import UserError

CONFIG = """
default_scope = 'mmpretrain'
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
def loader(split, **more):
    return dict(
        batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='CustomDataset', data_root='set', data_prefix=split, pipeline=pipeline))
train_dataloader, val_dataloader, test_dataloader = loader('train'), loader('val'), loader('val')
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmctx.ContextualResNet', depth=18, base_channels=8, stem_channels=8,
                  num_classes=3, considered=(3, 2, 1), embed_dims=8, out_type='logits'),
    head=dict(type='mmctx.ContextualClsHead'))
data_preprocessor = dict(num_classes=3, mean=[0, 0, 0], std=[255, 255, 255])
val_evaluator = [dict(type='Accuracy', topk=(1, 3)),
                 dict(type='mmctx.StageRecall', considered=(3, 2, 1))]
test_evaluator = val_evaluator
train_cfg, val_cfg, test_cfg = dict(by_epoch=True, max_epochs=1), dict(), dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
param_scheduler = [dict(type='MultiStepLR', milestones=[1], by_epoch=True)]
default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='accuracy/top1'))
"""


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Folders of the classes a, b, c in both splits; 6 and 3 images of 40 pixels."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'config.py').write_text(CONFIG)
    rng = np.random.default_rng(0)
    for split, count in (('train', 2), ('val', 1)):
        for name in 'abc':
            folder = tmp_path / 'set' / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                cv2.imwrite(f'{folder}/{i}.png', rng.integers(0, 255, (40, 40, 3), np.uint8))
    return tmp_path / 'set'


@pytest.fixture
def build():
    def build(mode='train', **options):
        options = {key.replace('__', '.'): value for key, value in options.items()}
        cfg = load_config('config.py', options)
        if mode == 'train':
            set_training(cfg)
        else:
            set_testing(cfg, None)
        return build_runner(cfg, mode)

    return build


@pytest.fixture
def refused(images, build):
    """The message of a refusal; nothing has been trained or saved then."""

    def refused(mode='train', **options):
        with pytest.raises(UserError) as caught:
            build(mode, **options)
        assert not list(Path().glob('**/*.pth'))
        return str(caught.value)

    return refused


@pytest.mark.parametrize('mode', ['train', 'test'])
def test_what_agrees_is_built(images, build, mode):
    build(mode)


def test_a_network_of_more_classes_than_the_data(refused):
    message = refused(model__backbone__num_classes=5, data_preprocessor__num_classes=5)
    assert 'num_classes is 5' in message and 'has 3 classes (a, b, c)' in message


@pytest.mark.parametrize('mode', ['train', 'test'])
def test_a_network_of_fewer_classes_than_the_data(refused, mode):
    options = dict(model__backbone__num_classes=2, model__backbone__considered=(2, 2, 1))
    message = refused(mode, **options)
    assert 'num_classes is 2' in message and 'has 3 classes' in message


def test_class_folders_that_only_one_split_has(images, refused):
    (images / 'val' / 'b').rename(images / 'val' / 'd')
    message = refused()
    assert 'only train_dataloader has b, only val_dataloader has d' in message


def test_a_list_with_a_label_that_there_is_not(images, refused):
    (images / 'list.txt').write_text('train/a/0.png 0\ntrain/b/0.png 3\n')
    message = refused(train_dataloader__dataset__ann_file='list.txt',
                      train_dataloader__dataset__data_prefix='')  # fmt: skip
    assert 'b/0.png has the label 3' in message and 'numbered from 0' in message


def test_a_list_that_contradicts_itself(images, refused):
    (images / 'list.txt').write_text('train/a/0.png 0\ntrain/b/0.png 1\ntrain/a/0.png 2\n')
    message = refused(train_dataloader__dataset__ann_file='list.txt',
                      train_dataloader__dataset__data_prefix='')  # fmt: skip
    assert 'contradict each other for 1 files' in message and 'the labels 0 and 2' in message


def test_a_list_of_files_that_are_not_there(images, refused):
    (images / 'list.txt').write_text('val/a/0.png 0\nval/a/7.png 0\n')
    (images / 'val' / 'a' / '8.png').symlink_to('nowhere.png')
    message = refused(val_dataloader__dataset__ann_file='list.txt',
                      val_dataloader__dataset__data_prefix='')  # fmt: skip
    assert '1 of the 2 files' in message and 'a/7.png' in message


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('train/a/0.png,0\n', "list.txt, line 1: expected a file, a space and .*'train/a/0.png,0'"),
        ('train/a/0.png 0\ntrain/b/0.png cat\n', 'list.txt, line 2: expected a file'),
        ('train/a/0.png 0\n\ntrain/b/0.png 1\n', "list.txt, line 2: .*got ''"),
        ('train/a/0.png\n', 'list.txt, line 1: expected a file'),
        ('', 'list.txt lists no images'),
    ],
)
def test_a_list_that_is_none(images, build, text, words):
    (images / 'list.txt').write_text(text)
    lists = dict(train_dataloader__dataset__ann_file='list.txt',
                 train_dataloader__dataset__data_prefix='')  # fmt: skip
    with pytest.raises(UserError, match=words):
        build(**lists)


def test_a_list_that_names_a_folder(images, refused):
    (images / 'list.txt').write_text('val/a/0.png 0\nval/a 0\n')
    message = refused(val_dataloader__dataset__ann_file='list.txt',
                      val_dataloader__dataset__data_prefix='')  # fmt: skip
    assert '1 of the 2 files' in message and message.endswith('val/a')


def test_lists_that_number_the_classes_otherwise(images, refused, build):
    for split in ('train', 'val'):
        numbers = dict(zip('abc', (0, 1, 2) if split == 'train' else (2, 1, 0)))
        lines = [f'{name}/0.png {number}\n' for name, number in numbers.items()]
        (images / f'{split}.txt').write_text(''.join(lines))
    lists = {f'{split}_dataloader__dataset__ann_file': f'{split}.txt' for split in ('train', 'val')}
    message = refused(**lists)
    assert 'in folders a have the label 0 in train_dataloader and 2 in val_dataloader' in message
    # A list of the one split, and the folders of the other.
    message = refused(val_dataloader__dataset__ann_file='val.txt')
    assert 'in folders a have the label 0 in train_dataloader and 2 in val_dataloader' in message
    (images / 'val.txt').write_text((images / 'train.txt').read_text())
    build(train_dataloader__batch_size=3, **lists)


def test_names_of_class_folders_in_another_order(refused):
    meta = dict(classes=('c', 'b', 'a'))
    message = refused(train_dataloader__dataset__metainfo=meta,
                      val_dataloader__dataset__metainfo=meta)  # fmt: skip
    assert 'class 0 is a in the folders and c in `classes` of train_dataloader' in message


def test_a_link_that_leads_nowhere(images, refused):
    (images / 'val' / 'a' / '8.png').symlink_to('nowhere.png')
    message = refused()
    assert '1 links in' in message and 'val/a/8.png' in message


@pytest.mark.parametrize(('mode', 'split'), [('train', 'val'), ('test', 'test')])
def test_topk_of_more_classes_than_there_are(refused, mode, split):
    message = refused(mode, **{f'{split}_evaluator': [dict(type='Accuracy', topk=(1, 5))]})
    assert f'topk=5 of Accuracy of {split}_evaluator is more than the 3 classes' in message


def test_a_metric_of_other_considered_classes(refused):
    message = refused(val_evaluator=[dict(type='mmctx.StageRecall', considered=(3, 2, 2))])
    assert 'considered=(3, 2, 2)' in message and 'considered=(3, 2, 1)' in message


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (
            dict(
                default_hooks__checkpoint__save_best='accuracy/top5',
            ),
            "is 'accuracy/top3' meant",
        ),
        (
            dict(
                default_hooks__checkpoint__save_best='top1',
                default_hooks__checkpoint__rule='greater',
            ),
            'which no metric of val_evaluator computes',
        ),
        (
            dict(custom_hooks=[dict(type='EarlyStoppingHook', monitor='accuracy/top7')]),
            'monitor of the early stopping hook',
        ),
    ],
)
def test_a_figure_that_no_metric_computes(refused, options, words):
    assert words in refused(**options)


def test_a_last_batch_of_one_image(images, refused, build):
    message = refused(train_dataloader__batch_size=5)
    assert '6 samples in batches of 5' in message and 'train_dataloader.drop_last=True' in message
    build(train_dataloader__batch_size=5, train_dataloader__drop_last=True)
    build(train_dataloader__batch_size=5, model__backbone__norm='LN')


def test_images_below_the_stride_as_they_reach_the_network(images, refused, build):
    small = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=20), dict(type='PackInputs')]
    message = refused(train_dataloader__dataset__pipeline=small)
    assert 'with 20x20 pixels, but its stride is 32' in message
    for path in images.rglob('*.png'):
        cv2.imwrite(str(path), np.zeros((20, 20, 3), np.uint8))
    large = [dict(small[0]), dict(type='Resize', scale=64), dict(small[2])]
    build(train_dataloader__dataset__pipeline=large, val_dataloader__dataset__pipeline=large)


@pytest.mark.parametrize(
    'options',
    [
        dict(optim_wrapper__optimizer__learning_rate=0.1),
        dict(optim_wrapper__optimizer__type='Sgd'),
        dict(optim_wrapper__optimizer__lr=-1.0),
        dict(optim_wrapper__optimizer__momentum='much'),
        dict(optim_wrapper__clip_gradd=dict(max_norm=1)),
        dict(optim_wrapper__accumulative_counts=0),
        dict(param_scheduler__0__start=3),
        dict(param_scheduler__0__type='MultiStepRL'),
        dict(param_scheduler=[dict(type='LinearLR', start_factor=2.0)]),
        dict(default_hooks__checkpoint__save_best=3),
        dict(default_hooks__checkpoint__rule='best'),
        dict(val_evaluator=[dict(type='Acuracy')]),
        dict(val_evaluator=[dict(type='Accuracy', topkk=1)]),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_before_the_data_are_read(images, refused, options, monkeypatch):
    def read(*_, **__):
        raise AssertionError('data are read')

    monkeypatch.setattr('mmpretrain.datasets.CustomDataset.load_data_list', read)
    assert '\n' not in refused(**options).strip()


def test_numbers_that_the_checks_draw_do_not_change_the_run(images, build):
    import torch

    states = []
    for scored in (True, False):
        options = {} if scored else dict(val_cfg=None, val_dataloader=None, val_evaluator=None)
        options['randomness__seed'] = 3
        if not scored:
            options['default_hooks__checkpoint__save_best'] = None
        build(**options)
        states.append(torch.rand(3))
    assert torch.equal(*states)


def test_an_argument_that_a_hook_looks_at_when_the_run_begins(images, build):
    runner = build(custom_hooks=[dict(type='EMAHook', momentum=2.0)])
    with pytest.raises(UserError, match='momentum must be in range'):
        run(runner, 'train')


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(train_cfg__max_epochs=0), 'train_cfg.max_epochs is 0'),
        (dict(train_cfg__val_interval=0), 'val_interval is 0, but should be at least 1'),
        (dict(train_dataloader__batch_size=0), 'train_dataloader.batch_size should be a number'),
        (
            dict(train_dataloader__batch_size=8, train_dataloader__drop_last=True),
            'gives no batch of its 6 samples',
        ),
        (
            dict(train_cfg=dict(_delete_=True, by_epoch=False, max_iters=2)),
            'MultiStepLR of param_scheduler counts epochs',
        ),
        (dict(train_dataloader__dataset__classes='lost.txt'), 'lost.txt'),
    ],
    ids=str,
)
def test_a_training_that_would_not_train(refused, options, words):
    assert words in refused(**options)


def test_what_has_no_effect_on_the_training_is_a_warning(images, build, monkeypatch):
    logged = []
    for module in ('agreement.training', 'building'):
        monkeypatch.setattr(f'mmctx.cli.{module}.print_log', lambda text, *_: logged.append(text))
    build(
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=True, end=500),
            dict(type='CosineAnnealingLR', by_epoch=True, T_max=12),
            dict(type='MultiStepLR', by_epoch=True, milestones=[0, 8]),
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3),
            dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=2, end=3),
        ],
        optim_wrapper__paramwise_cfg=dict(custom_keys=dict(bakbone={}, backbone={})),
    )
    end = 'but the training ends after epoch 1'
    assert logged == [
        'no parameter has bakbone in its name, so that these keys of '
        'optim_wrapper.paramwise_cfg.custom_keys have no effect',
        f'param_scheduler.0 (LinearLR) continues to epoch 500, {end}',
        f'param_scheduler.1 (CosineAnnealingLR) continues to epoch 12, {end}',
        f'param_scheduler.2 (MultiStepLR) has milestones [8], {end}',
        f'param_scheduler.4 (LinearLR) begins at epoch 2, {end}',
    ]


@pytest.mark.parametrize('split', ['train', 'val'])
def test_an_empty_image_is_named(images, build, split):
    (images / split / 'c' / '0.png').write_bytes(b'')
    with pytest.raises(UserError, match=rf'{split}/c/0\.png.* cannot be '):
        run(build(train_dataloader__batch_size=3), 'train')


def test_an_argument_of_what_a_hook_builds_when_the_run_begins(images, build):
    runner = build(custom_hooks=[dict(type='EMAHook', momentm=0.1)])
    with pytest.raises(UserError, match="unexpected keyword argument 'momentm'"):
        run(runner, 'train')
