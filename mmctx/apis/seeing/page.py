"""A local web page, by Gradio, that shows what a network made of a picture."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mmctx.apis.predictions import title_of
from mmctx.errors import Unavailable, UserError
from mmctx.models.context_record import contextual_convolutions

from .figures import Draw, drawing_cams, drawing_cascades, drawing_sampling
from .viewer import ContextViewer, Subject

UNKNOWN = 'not known'


class View(NamedTuple):
    """What the page shows of a picture.

    Attributes:
        seen (np.ndarray): The picture as the network sees it, (H, W, 3) uint8 RGB, small ones
            enlarged.
        prediction (dict[str, float]): Score of the likeliest classes, or of the objects found.
        cascade (Image, optional): Figure of the cascade; None where no stage classifies.
        sampling (Image): Figure of sampling points.
        cam (Image, optional): Figure of Grad-CAM; None for a detector.
    """

    seen: np.ndarray
    prediction: dict[str, float]
    cascade: Image.Image | None
    sampling: Image.Image
    cam: Image.Image | None


def view_of(
    viewer: ContextViewer,
    path: str,
    layer: str,
    place: tuple[float, float] | None = None,
    label: str | None = None,
) -> View:
    """Everything that the page shows of a picture.

    Args:
        viewer (ContextViewer): The network.
        path (str): The picture.
        layer (str): Name of the contextual convolution whose sampling points are shown.
        place (tuple[float, float], optional): Where, (x, y) from 0 to 1. Defaults to None, those of
            `places_of_interest`.
        label (str, optional): Name of the true class. Defaults to None, not known.
    """
    subject = viewer.load(path, label)
    (result,) = viewer.predictor([path])
    found = result.get('labels') or result.get('objects') or result.get('segments') or []
    prediction: dict[str, float] = {}
    for entry in found:
        # Classes that the network has dropped have no score. Of several objects of a class the
        # likeliest comes first.
        value = entry['score'] if 'score' in entry else entry['share']
        if value > 0:
            prediction.setdefault(title_of(entry), value)
    classifies = bool(viewer.run(subject).stages)
    # A class that the network has dropped has no map.
    alone = subject._replace(label=None)
    scale = -(-256 // max(subject.image.shape[:2]))
    return View(
        subject.image.repeat(scale, 0).repeat(scale, 1),
        prediction,
        _drawn(drawing_cascades(viewer), subject) if classifies else None,
        _drawn(drawing_sampling(viewer, layer, None if place is None else [place]), subject),
        None if viewer.predictor.kind == 'mmdet' else _drawn(drawing_cams(viewer), alone),
    )


def _drawn(draw: Draw, subject: Subject) -> Image.Image:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'figure.png'
        draw(subject, path)
        with Image.open(path) as image:
            image.load()
            return image


def build_page(viewer: ContextViewer, examples: Sequence[str] = ()) -> Any:
    """The page, for `launch`.

    Args:
        viewer (ContextViewer): A contextual network for images.
        examples (Sequence[str]): Pictures to choose from. Defaults to none.

    Returns:
        gradio.Blocks: The page.

    Raises:
        Unavailable: Gradio is not installed.
        UserError: The network is not contextual, or is for videos.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise Unavailable("the page needs Gradio: pip install 'mmctx[app]'") from error
    if viewer.predictor.kind == 'mmaction':
        raise UserError('the page takes pictures: `mmctx see` shows frames of a video')
    layers = list(contextual_convolutions(viewer.backbone))
    if not layers:
        raise UserError(f'this {type(viewer.backbone).__name__} has no contextual convolution')

    def look(path: str | None, layer: str, label: str, place: tuple | None) -> tuple:
        if path is None:
            raise gr.Error('Choose a picture first.')
        try:
            return tuple(view_of(viewer, path, layer, place, None if label == UNKNOWN else label))
        except UserError as error:
            raise gr.Error(str(error)) from error

    def move(seen: np.ndarray, event: gr.SelectData) -> tuple[float, float]:
        x, y = event.index
        return x / max(seen.shape[1] - 1, 1), y / max(seen.shape[0] - 1, 1)

    figure = dict(show_label=False, interactive=False, buttons=['download', 'fullscreen'])
    with gr.Blocks(title='mmctx', analytics_enabled=False) as page:
        gr.Markdown(f'## What the context of this {type(viewer.backbone).__name__} does')
        place = gr.State(None)
        with gr.Row():
            with gr.Column(scale=1):
                picture = gr.Image(label='Picture', type='filepath', sources=['upload'], height=260)
                label = gr.Dropdown([UNKNOWN, *viewer.names], value=UNKNOWN, label='True class')
                layer = gr.Dropdown(layers, value=layers[0], label='Contextual convolution')
                button = gr.Button('Look', variant='primary')
                if examples:
                    gr.Examples(list(examples), picture)
            with gr.Column(scale=1):
                gr.Markdown('As the network sees it; click to choose a position')
                seen = gr.Image(height=260, elem_id='seen', **figure)
                prediction = gr.Label(label='Prediction', num_top_classes=5, elem_id='prediction')
        gr.Markdown('### Classes that remain after each stage')
        cascade = gr.Image(elem_id='cascade', **figure)
        gr.Markdown('### Where the convolution samples')
        sampling = gr.Image(elem_id='sampling', **figure)
        gr.Markdown('### Grad-CAM of the prediction')
        cam = gr.Image(height=320, elem_id='cam', **figure)
        inputs = [picture, layer, label, place]
        outputs = [seen, prediction, cascade, sampling, cam]
        button.click(look, inputs, outputs)
        # Another picture has other places.
        picture.change(lambda: None, None, place)
        seen.select(move, seen, place).then(look, inputs, outputs)
    return page


def launch(page: Any, host: str = '127.0.0.1', port: int = 7860) -> str:
    """Serve a page, from threads of its own, and say where.

    Args:
        page (gradio.Blocks): Of `build_page`.
        host (str): Address to bind to. Defaults to '127.0.0.1', reached from this machine alone.
        port (int): Port. Defaults to 7860; 0 for a free one.

    Returns:
        str: Address of the page.

    Raises:
        UserError: The port is in use.
    """
    import gradio as gr

    fonts = ['system-ui', 'sans-serif']
    try:
        _, address, _ = page.launch(
            server_name=host,
            # Gradio looks for a free port by itself where none is named.
            server_port=port or None,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            # Nothing is fetched from elsewhere.
            theme=gr.themes.Default(font=fonts, font_mono=['monospace']),
        )
    except OSError as error:
        raise UserError(
            f'port {port} of {host} cannot be used: name another with --port'
        ) from error
    print(f'The page is at {address}', flush=True)
    return address
