"""Work-arounds for faults of the packages that mmctx builds on, each doing nothing unless needed.

* :mod:`after_import`: acting on modules of other packages once they are imported.
* :mod:`fallback_modules`: modules that a dependency's wheel lacks (`mmcv._ext`, mmaction2's DRN).
* :mod:`mmcv_ops`, :mod:`mmcv_differentiable`: what is served as `mmcv._ext`.
* :mod:`version_limits`: an mmcv newer than mmdet, mmpretrain and mmaction2 admit.
* :mod:`multimodal`: mmpretrain and mmaction2 beside a `transformers` too new for them.
* :mod:`config_paths`: `_base_ = 'mmctx::...'`.
* :mod:`config_variables`: environment variables with quotes or backslashes in a config.
* :mod:`coco_api`: labels of COCO's categories in the order of `classes`, and marked files.
* :mod:`numpy_versions`: what the frameworks use of NumPy that newer versions no longer have.
* :mod:`text_marks`: text files that begin with a byte order mark.
* :mod:`checkpoint`: loading mmengine's checkpoints where `torch.load` only takes plain weights.
* :mod:`pickles`: reading pickled data without running what it holds.
* :mod:`model_hub`: mmctx's classifiers by name in mmpretrain's `get_model` and `list_models`.
* :mod:`exporting`: whether an exporter is recording a network, and pooling while it does.
* :mod:`lamb`: mmpretrain's Lamb for networks with scalar parameters.
* :mod:`recognizers`: backbones of mmpretrain's kind in mmaction2's 2D recognizers.
* :mod:`temporal_shift`: mmaction2's temporal shift in a form that exporters can follow.
* :mod:`drawing_tools`: mmpretrain's tools that draw, beside newer matplotlib and scikit-learn.
* :mod:`launch`: distributed training on machines without a GPU.
* :mod:`triton_interpreter`: running Triton kernels without a GPU, for tests.
"""

from . import (
    coco_api,
    config_paths,
    config_variables,
    fallback_modules,
    lamb,
    model_hub,
    multimodal,
    numpy_versions,
    recognizers,
    temporal_shift,
    text_marks,
    version_limits,
)
from .after_import import after_import


def install():
    """Apply the work-arounds that do not import torch; mmctx's import calls it. Idempotent."""
    fallback_modules.install()
    version_limits.install()
    multimodal.install()
    numpy_versions.install()
    config_paths.install()
    config_variables.install()
    coco_api.install()
    text_marks.install()
    model_hub.install()
    temporal_shift.install()
    recognizers.install()
    lamb.install()
    # mmengine reads checkpoints here, whoever builds the model.
    after_import('mmengine.runner.checkpoint', lambda module: install_runtime())


def install_runtime():
    """Apply the work-arounds that need torch and mmengine's runner. Idempotent."""
    from . import checkpoint

    checkpoint.install()


def guard_files():
    """Let this process read only data from checkpoints and pickle files. Idempotent.

    Only mmctx's own runs call it: other programs that import mmctx may need their own files.
    """
    from . import checkpoint, pickles

    checkpoint.install(plain_only=True)
    pickles.install()


__all__ = ['guard_files', 'install', 'install_runtime']
