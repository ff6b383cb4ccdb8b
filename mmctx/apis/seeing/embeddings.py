"""Vectors of the classes: embeddings, or a vanilla classifier's weights."""

import numpy as np
from torch import Tensor, nn

from mmctx.errors import Unavailable, UserError

from .viewer import ContextViewer, contextualizing_of


def class_vectors(viewer: ContextViewer) -> Tensor:
    """A vector of each class: its embedding or, in a vanilla network, its classifier's weights.

    Returns:
        Tensor: (N₁, d), in float32.

    Raises:
        UserError: The network has neither.
    """
    layers = contextualizing_of(viewer.backbone)
    if layers is not None:
        return layers.embeddings.weight.detach().float().cpu()
    for name in ('head', 'cls_head'):
        head = getattr(viewer.model, name, nn.Module())
        found = [m for m in head.modules() if isinstance(m, nn.Linear)]
        if found:
            return found[-1].weight.detach().float().cpu()
    raise UserError('this network has neither class embeddings nor a linear classifier')


def cosines(vectors: Tensor) -> Tensor:
    """Cosine similarities of vectors, (N, d): (N, N)."""
    unit = nn.functional.normalize(vectors, dim=1)
    return unit @ unit.t()


def places_on_a_plane(vectors: Tensor, seed: int = 0) -> np.ndarray:
    """Places of vectors, (N, d), on a plane, (N, 2), by scikit-learn's t-SNE of cosine distances.

    Args:
        vectors (Tensor): The vectors, four or more.
        seed (int): Seed of the random start. Defaults to 0.

    Raises:
        UserError: There are fewer than four vectors.
        Unavailable: scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise Unavailable("t-SNE needs scikit-learn: pip install 'mmctx[see]'") from error
    if len(vectors) < 4:
        raise UserError(f't-SNE of {len(vectors)} classes shows nothing: it needs four or more')
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, metric='cosine', init='random', random_state=seed)
    return tsne.fit_transform(vectors.numpy())
