"""One sample of a detector and of a recognizer goes through network and metrics beforehand."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger

from mmctx.cli.agreement.inputs import check_sizes
from mmctx.cli.agreement.rehearsal import quiet
from mmctx.cli.config import load_config
from mmctx.cli.running import build_runner
from mmctx.cli.switches import set_training
from mmctx.datasets.shapes import render_dataset
from mmctx.errors import UserError

VIDEO = """
_base_ = '{config}'
train = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        _delete_=True, type='mmctx.VideoDataset', ann_file='{root}/list.txt',
        data_prefix=dict(video='{root}'), pipeline={{{{_base_.test_pipeline}}}}))
train_dataloader = train
val_dataloader = dict(train)
val_evaluator = dict(type='AccMetric')
"""


def build(path, tmp_path, **options):
    options = {key.replace('__', '.'): value for key, value in options.items()}
    cfg = load_config(str(path), options, work_dir=str(tmp_path / 'work'))
    set_training(cfg)
    return build_runner(cfg, 'train')


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp('shapes')
    render_dataset(root, num_train=2, num_val=2)
    return root


@pytest.fixture
def detector(shapes, repo, tmp_path, monkeypatch):
    """Build the demo's detector with options."""
    monkeypatch.setenv('SHAPES_ROOT', str(shapes))
    config = repo / 'configs' / 'mask_rcnn_ctx_convnext_shapes.py'
    return lambda **options: build(config, tmp_path, **options)


def test_a_detector_whose_metric_finds_what_it_scores(detector):
    detector(default_hooks__checkpoint__save_best='coco/segm_mAP')


def test_figures_of_a_rehearsal_are_not_logged():
    logger, logged = MMLogger.get_current_instance(), []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    logger.addHandler(handler)
    try:
        logger.info('as in a run, the logger is in use')
        with quiet():
            logger.info('bbox_mAP_copypaste: 0.9')
        logger.info('the training begins')
    finally:
        logger.removeHandler(handler)
    assert logged == ['as in a run, the logger is in use', 'the training begins']


def test_views_of_test_time_augmentation_are_as_large_as_the_stride():
    class Views(list):
        def get_data_info(self, index):
            return dict(img_path='a.jpg', width=64, height=64)

        def pipeline(self, info):
            return dict(
                inputs=[torch.zeros(3, side, 64) for side in self.sides], data_samples=[1, 2]
            )

    views = Views([0])
    model = SimpleNamespace(
        backbone=SimpleNamespace(stride=32),
        data_preprocessor=lambda batch, training: dict(inputs=torch.stack(batch['inputs'])),
    )
    loader = SimpleNamespace(dataset=views, collate_fn=pseudo_collate)
    views.sides = [64, 32]
    check_sizes(model, loader, 'test')
    views.sides = [64, 31]
    with pytest.raises(UserError, match='with 64x31 pixels, but its stride is 32'):
        check_sizes(model, loader, 'test')


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(model__roi_head__mask_head=None), 'val_dataloader, model and val_evaluator do not'),
        (
            dict(
                val_evaluator__metric='bbox', default_hooks__checkpoint__save_best='coco/segm_mAP'
            ),
            "is 'coco/segm_mAP', which no metric of val_evaluator computes",
        ),
        (dict(model__test_cfg__rcnn__nms__type='nmss'), 'nmss'),
    ],
    ids=['masks of a network of boxes', 'figures of masks', 'a function that there is not'],
)
def test_a_detector_and_a_metric_that_do_not_go_together(detector, options, words):
    with pytest.raises(UserError) as caught:
        detector(**options)
    assert words in str(caught.value)


@pytest.fixture
def video(recognizer, clip, tmp_path):
    """Build a recognizer of three actions with options."""
    (clip.parent / 'list.txt').write_text(f'{clip.name} 0\n{clip.name} 0\n')
    path = tmp_path / 'video.py'
    path.write_text(VIDEO.format(config=recognizer / 'config.py', root=clip.parent))
    return lambda **options: build(path, tmp_path, **options)


def test_a_recognizer_whose_metric_finds_what_it_scores(video):
    video(default_hooks__checkpoint__save_best='acc/top1', val_evaluator__metric_options=TOP_1)


TOP_1 = dict(top_k_accuracy=dict(topk=(1,)))


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(val_evaluator=dict(type='AccMetric')), 'topk=5 of AccMetric of val_evaluator'),
        (
            dict(val_evaluator=dict(type='MultiSportsMetric', ann_file='lost.pkl')),
            'lost.pkl',
        ),
        (
            dict(default_hooks__checkpoint__save_best='top1', val_evaluator__metric_options=TOP_1),
            "is 'top1', which no metric of val_evaluator computes (there are acc/mean1, acc/top1)",
        ),
    ],
    ids=['too few classes', 'a metric of something else', 'a figure without its prefix'],
)
def test_a_recognizer_and_a_metric_that_do_not_go_together(video, options, words):
    with pytest.raises(UserError) as caught:
        video(**options)
    assert words in str(caught.value)
