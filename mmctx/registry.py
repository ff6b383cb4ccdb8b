"""Registries of mmctx, children of mmengine's.

With them `type='mmctx.ContextualConvNeXt'` works in any OpenMMLab config. The modules of a registry
are imported on its first look-up, so that importing `mmctx` stays quick. Modules that extend mmdet
or mmaction2 are imported only if that package is installed.
"""

from importlib.util import find_spec
from typing import Any

from mmengine import registry as upstream
from mmengine.registry import Registry


def _child(parent: Registry, *modules: str, **of_packages: str) -> Registry:
    """Registry whose modules are those of mmctx, and those that extend an installed package."""
    found = [*modules, *(module for package, module in of_packages.items() if find_spec(package))]
    locations = [f'mmctx.{module}' for module in found]
    return Registry(parent.name, parent=parent, scope='mmctx', locations=locations)


MODELS = _child(
    upstream.MODELS,
    'models.backbones',
    'models.contextualize',
    'models.data_preprocessors',
    'models.heads',
    'models.losses',
)
DATASETS = _child(
    upstream.DATASETS,
    'datasets.imagenet',
    'datasets.packed',
    'datasets.tiny_imagenet',
    mmdet='datasets.coco',
    mmaction='datasets.video',
)
TRANSFORMS = _child(upstream.TRANSFORMS, mmaction='datasets.video_transforms')
METRICS = _child(upstream.METRICS, 'evaluation.stage_metric', mmdet='evaluation.coco_metric')
OPTIM_WRAPPER_CONSTRUCTORS = _child(upstream.OPTIM_WRAPPER_CONSTRUCTORS, 'engine.optimizers')
HOOKS = _child(upstream.HOOKS, 'engine.hooks')
WEIGHT_INITIALIZERS = _child(upstream.WEIGHT_INITIALIZERS, 'models.layers')


def base_named(cls: type | None, name: str) -> type | None:
    """The class or the base of it that has a name, whose package may not be installed."""
    return next((base for base in getattr(cls, '__mro__', ()) if base.__name__ == name), None)


def class_of(config: dict, registry: Registry, scope: str | None = None) -> Any:
    """Class that a module's config names, looked up where mmengine looks when it builds the module.

    A framework's modules are registered in its own registry, so mmengine's alone does not know
    them.

    Args:
        config (dict): Config with a `type`.
        registry (Registry): mmengine's registry of such modules.
        scope (str, optional): Framework whose registry is asked if the config has no `_scope_`.
            Defaults to None, the default scope of the run.

    Returns:
        type | None: None if nothing is registered under the name.
    """
    kind = config.get('type')
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(config.get('_scope_') or scope) as scoped:
        return scoped.get(kind)


def bare_name(kind: str | type) -> str:
    """Name of a class by the `type` of its config, without scope and module.

    Args:
        kind (str | type): The class itself, as in configs of pure Python, or a name such as
            `Resize`, `mmdet.Resize` or `mmdet.datasets.transforms.Resize`.

    Returns:
        str: Such as `Resize`.
    """
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]
