"""mmctx's classifiers by name in mmpretrain's `get_model`, `list_models` and inferencers.

mmpretrain's hub knows only its own models; other packages can add theirs, but only by importing the
hub. It reads its list when a model is first asked for, and mmctx's list is read then, too.
"""

from .after_import import after_import
from .config_paths import config_dir

TASK = 'Image Classification'


def register(hub):
    """Add mmctx's classifiers to the hub.

    Args:
        hub (type): mmpretrain's `ModelHub`.
    """
    root = config_dir().parent
    known = set(hub._models_dict)
    hub.register_model_index(root / 'model-index.yml', config_prefix=root)
    for name in set(hub._models_dict) - known:
        # mmpretrain cannot build detectors and recognizers.
        if TASK not in {result.task for result in hub._models_dict[name].results or ()}:
            del hub._models_dict[name]


def install():
    """Add mmctx's classifiers to mmpretrain's hub when it is imported. Idempotent."""

    def extend(module):
        hub = module.ModelHub
        original = hub._register_mmpretrain_models.__func__
        added = False

        def register_models(cls):
            nonlocal added
            original(cls)
            if not added:
                added = True
                register(cls)

        hub._register_mmpretrain_models = classmethod(register_models)

    after_import('mmpretrain.apis.model', extend)
