"""mmpretrain and mmaction2 with versions of packages that their multimodal models do not support.

Both import these models if `transformers>=4.28` is installed (mmpretrain: pycocotools too), and
fail if that version no longer has what the models import: `GenerationMixin` left
`transformers.modeling_utils` in 4.52, the rest by 4.57. mmaction2's models need timm as well,
without checking for it. The packages' own switch then turns the models off.
"""

import sys
from importlib import import_module

from .after_import import after_import

_BERT = ('PreTrainedModel', 'apply_chunking_to_forward', 'find_pruneable_heads_and_indices',
         'prune_linear_layer')  # fmt: skip
_TRANSFORMERS = 'transformers.modeling_utils'
# The modules with the switch, and what the models behind it import.
_NEEDED = {
    'mmpretrain.utils.dependency': {
        _TRANSFORMERS: ('GenerationConfig', 'GenerationMixin', 'PretrainedConfig') + _BERT,
    },
    'mmaction.utils.dependency': {_TRANSFORMERS: _BERT, 'timm.models.layers': ('DropPath',)},
}
_REMEDIES = {_TRANSFORMERS: 'transformers<4.52', 'timm.models.layers': 'timm'}


def _look_at(module):
    """Turn the multimodal models off if they cannot be imported."""
    if not getattr(module, 'WITH_MULTIMODAL', False):
        return
    troubles = [*filter(None, (_trouble(*need) for need in _NEEDED[module.__name__].items()))]
    if troubles:
        module.WITH_MULTIMODAL = False
        module.register_multimodal_placeholder = _placeholders(module.__name__, troubles)


def _trouble(source, names):
    """Reason why the models cannot be imported, and the remedy; '' if they can."""
    try:
        module = import_module(source)
    # Its own dependencies may raise any error.
    except Exception as error:
        trouble = f'{source} cannot be imported ({type(error).__name__}: {error})'
    else:
        lost = [name for name in names if not hasattr(module, name)]
        if not lost:
            return ''
        version = sys.modules[source.partition('.')[0]].__version__
        trouble = f'{source} {version} lacks {", ".join(lost)}'
    return f"{trouble}: pip install '{_REMEDIES[source]}'"


def _placeholders(module_name, troubles):
    """Replacement of `register_multimodal_placeholder` that says what is wrong."""
    package = module_name.partition('.')[0]

    def refusal(name):
        def refuse(*args, **kwargs):
            raise ImportError(f'{name} of {package} does not work here: {"; ".join(troubles)}')

        return refuse

    def register(names, registry):
        for name in names:
            registry.register_module(name=name, module=refusal(name))

    return register


def install():
    """Check the two modules when they are imported, or at once if they are already. Idempotent."""
    for name in _NEEDED:
        after_import(name, _look_at)
