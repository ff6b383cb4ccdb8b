"""mmpretrain's `browse_dataset` and `vis_tsne` beside newer versions of what they draw with.

* matplotlib's `adjust_bbox`, which is private, needs a renderer.
* scikit-learn's `TSNE` calls its iterations `max_iter`, once `n_iter`.
* `browse_dataset` passes a visualizer's config to the constructor as it is. mmengine marks the
  parts of a config that inherits from another package's with a `_scope_`.
"""

import functools
import inspect

from .after_import import after_import


def install():
    """Let the tools of this process pass what they pass; only `mmctx run` calls it. Idempotent."""
    after_import('matplotlib._tight_bbox', _find_renderer)
    after_import('sklearn.manifold', _rename_iterations)
    after_import('mmpretrain.visualization.visualizer', _ignore_scope)


def _find_renderer(module):
    own = module.adjust_bbox
    renderer = inspect.signature(own).parameters.get('renderer')
    if renderer is None or renderer.default is not renderer.empty:
        return

    @functools.wraps(own)
    def adjust_bbox(fig, bbox_inches, renderer=None, fixed_dpi=None):
        return own(fig, bbox_inches, renderer or fig.canvas.get_renderer(), fixed_dpi)

    module.adjust_bbox = adjust_bbox


def _rename_iterations(module):
    own = module.TSNE.__init__
    if 'n_iter' in inspect.signature(own).parameters:
        return

    @functools.wraps(own)
    def __init__(self, *args, n_iter=None, **options):
        if n_iter is not None:
            options['max_iter'] = n_iter
        own(self, *args, **options)

    module.TSNE.__init__ = __init__


def _ignore_scope(module):
    own = module.UniversalVisualizer.__init__

    @functools.wraps(own)
    def __init__(self, *args, _scope_=None, **options):
        own(self, *args, **options)

    module.UniversalVisualizer.__init__ = __init__
