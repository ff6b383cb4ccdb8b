"""Figures of what a network did, from its pictures to files."""

import os
from collections.abc import Callable, Sequence

from mmctx.errors import UserError
from mmctx.visualization.cam import draw_cams
from mmctx.visualization.cascade import draw_cascade
from mmctx.visualization.embeddings import draw_similarities, draw_tsne
from mmctx.visualization.kernels import draw_kernel_changes
from mmctx.visualization.sampling import draw_sampling
from mmctx.visualization.style import shortened

from .cascade import cascade_of
from .embeddings import class_vectors, cosines, places_on_a_plane
from .grad_cam import grad_cam
from .kernels import kernel_changes
from .sampling import sampling_views
from .viewer import ContextViewer, Subject

Draw = Callable[[Subject, str | os.PathLike], None]


def drawing_cascades(viewer: ContextViewer) -> Draw:
    """A function that draws the cascade of a picture into a file."""
    return lambda subject, path: draw_cascade(
        subject.image, cascade_of(viewer, subject), viewer.names, subject.label, path
    )


def drawing_sampling(
    viewer: ContextViewer, layer: str, places: Sequence[tuple[float, float]] | None = None
) -> Draw:
    """A function that draws sampling points on a picture into a file.

    Without places, see `sampling_views`, they are those of `places_of_interest`.
    """

    def draw(subject: Subject, path: str | os.PathLike) -> None:
        chosen = viewer.places_of_interest(subject) if places is None else places
        draw_sampling(subject.image, sampling_views(viewer, subject, layer, chosen), layer, path)

    return draw


def drawing_tsne(viewer: ContextViewer) -> Draw:
    """A function that draws the class embeddings with what a picture keeps of them into a file."""
    places = places_on_a_plane(class_vectors(viewer))
    return lambda subject, path: draw_tsne(
        subject.image, places, cascade_of(viewer, subject), viewer.names, subject.label, path
    )


def drawing_cams(viewer: ContextViewer, vanilla: ContextViewer | None = None) -> Draw:
    """A function that draws Grad-CAM of a picture into a file.

    The maps are of the picture's true class or, where it is not known, of what each network
    predicts. A vanilla network has to see images of the same size.
    """

    def draw(subject: Subject, path: str | os.PathLike) -> None:
        maps = []
        for heading, each in (('contextual', viewer), ('vanilla', vanilla)):
            if each is None:
                continue
            seen = subject if each is viewer else each.load(subject.path)
            label, values = grad_cam(each, seen, subject.label)
            if values.shape != subject.image.shape[:2]:
                raise UserError(
                    f'the networks see images of {subject.image.shape[:2]} and {values.shape} '
                    'pixels: give both the same test pipeline'
                )
            classes = each.predictor.classes
            name = classes[label] if classes else f'class {label}'
            maps.append((f'{heading}: {shortened(name)}', values))
        draw_cams(subject.image, maps, path)

    return draw


def save_kernels(
    viewer: ContextViewer, subjects: Sequence[Subject], layer: str, path: str | os.PathLike
) -> None:
    """Draw how much Δw changes the kernels for the pictures of each class, see `kernel_changes`."""
    found = kernel_changes(viewer, subjects, layer)
    names = [viewer.names[label] for label in found.labels]
    draw_kernel_changes(found.changes, found.likeness, names, found.layers, layer, path)


def save_similarities(
    viewer: ContextViewer, vanilla: ContextViewer | None, path: str | os.PathLike
) -> None:
    """Draw how similar the classes are to each other in the vectors that a network has of them.

    A vanilla network has to have as many classes.
    """
    matrices = [
        (heading, cosines(class_vectors(each)).numpy())
        for heading, each in (('class embeddings', viewer), ('vanilla classifier', vanilla))
        if each is not None
    ]
    sizes = [len(matrix) for _, matrix in matrices]
    if len(set(sizes)) > 1:
        raise UserError(f'the networks have {sizes[0]} and {sizes[1]} classes')
    draw_similarities(matrices, viewer.names or tuple(map(str, range(sizes[0]))), path)
