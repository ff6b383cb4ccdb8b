"""Registries of mmctx, children of mmengine's.

With them `type='mmctx.ContextualConvNeXt'` works in any OpenMMLab config. The modules of a registry
are imported on its first look-up, so that importing `mmctx` stays quick. Modules that extend mmdet
or mmaction2 are imported only if that package is installed.
"""

from importlib.util import find_spec

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

_OF_MMDET = find_spec('mmdet') is not None
_OF_MMACTION = find_spec('mmaction') is not None

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mmctx',
    locations=[
        'mmctx.models.backbones',
        'mmctx.models.contextualize',
        'mmctx.models.data_preprocessors',
        'mmctx.models.heads',
        'mmctx.models.losses',
    ],
)
DATASETS = Registry(
    'dataset',
    parent=MMENGINE_DATASETS,
    scope='mmctx',
    locations=[
        'mmctx.datasets.imagenet',
        'mmctx.datasets.packed',
        'mmctx.datasets.tiny_imagenet',
        *(['mmctx.datasets.coco'] if _OF_MMDET else []),
        *(['mmctx.datasets.video'] if _OF_MMACTION else []),
    ],
)
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    scope='mmctx',
    locations=['mmctx.datasets.video_transforms'] if _OF_MMACTION else [],
)
METRICS = Registry(
    'metric',
    parent=MMENGINE_METRICS,
    scope='mmctx',
    locations=[
        'mmctx.evaluation.stage_metric',
        *(['mmctx.evaluation.coco_metric'] if _OF_MMDET else []),
    ],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optim wrapper constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope='mmctx',
    locations=['mmctx.engine.optimizers'],
)
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='mmctx',
    locations=['mmctx.engine.hooks'],
)
WEIGHT_INITIALIZERS = Registry(
    'weight initializer',
    parent=MMENGINE_WEIGHT_INITIALIZERS,
    scope='mmctx',
    locations=['mmctx.models.layers'],
)
