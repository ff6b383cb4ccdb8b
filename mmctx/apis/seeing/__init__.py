"""What a trained contextual network did on an image: cascade, sampling points, kernels, maps."""

from .cascade import cascade_of
from .embeddings import class_vectors, cosines, places_on_a_plane
from .grad_cam import grad_cam
from .kernels import kernel_changes
from .sampling import sampling_views
from .viewer import ContextViewer, Subject

__all__ = [
    'ContextViewer',
    'Subject',
    'cascade_of',
    'class_vectors',
    'cosines',
    'grad_cam',
    'kernel_changes',
    'places_on_a_plane',
    'sampling_views',
]
