"""Instance-segmentation data sets for mmdet, which this module needs."""

from mmdet.datasets import CocoDataset

from mmctx.registry import DATASETS

from .shapes import METAINFO


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """The rendered shapes of `tools/dataset_converters/render_shapes.py`.

    It takes mmdet's `CocoDataset` arguments; the categories are those that the renderer knows.
    """

    METAINFO = METAINFO
