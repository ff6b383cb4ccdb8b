"""What commands of the tests have imported when they begin, see `forked`."""

import gc
from contextlib import suppress
from importlib import import_module

from mmengine.config import Config
from saved_time import save_time

import mmctx.cli.running  # noqa: F401

PARTS = ('apis', 'datasets', 'engine', 'evaluation', 'models', 'visualization')
CONFIGS = {
    'mmdet': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mmpretrain': 'resnet/resnet50_8xb32_in1k.py',
    'mmaction': 'recognition/tsm/tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb.py',
}
save_time()
for package, config in CONFIGS.items():
    # Not all of them are installed everywhere.
    with suppress(ImportError):
        for part in PARTS:
            import_module(f'{package}.{part}')
        Config._get_cfg_path(f'{package}::{config}', '')
# What is there is not looked through again, here and in what is forked of it.
gc.collect()
gc.freeze()
