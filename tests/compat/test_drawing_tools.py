"""mmpretrain's tools draw beside newer matplotlib and scikit-learn."""

import pytest

from mmctx.compat import drawing_tools


@pytest.fixture(scope='module', autouse=True)
def installed():
    drawing_tools.install()


def test_tsne_takes_the_former_name_of_its_iterations():
    manifold = pytest.importorskip('sklearn.manifold')
    assert manifold.TSNE(n_iter=300).get_params()['max_iter'] == 300
    assert manifold.TSNE(max_iter=400).get_params()['max_iter'] == 400


def test_a_figure_finds_its_renderer():
    from matplotlib._tight_bbox import adjust_bbox
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    figure = Figure(figsize=(4, 3))
    FigureCanvasAgg(figure)
    figure.add_subplot()
    adjust_bbox(figure, Bbox([[0, 0], [2, 1]]))
    assert tuple(figure.bbox_inches.size) == (2, 1)


def test_a_visualizer_is_built_from_the_config_of_another_package():
    from mmpretrain.visualization import UniversalVisualizer

    visualizer = UniversalVisualizer(_scope_='mmpretrain', fig_save_cfg=dict(figsize=(2, 1)))
    assert visualizer.fig_save_cfg == dict(figsize=(2, 1))
