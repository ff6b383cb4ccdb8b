"""mmctx's classifiers by name in mmpretrain: `get_model`, `list_models`, its inferencers.

mmpretrain's hub knows its own models alone; other packages can add theirs, but only by importing
it. It reads its list when it is first asked for a model, and so is this one.
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
        # mmpretrain builds no detectors and recognizers.
        if TASK not in {result.task for result in hub._models_dict[name].results or ()}:
            del hub._models_dict[name]


def install():
    """Have mmpretrain's hub, once it is imported, know mmctx's classifiers. Idempotent."""

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
