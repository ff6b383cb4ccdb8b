"""ImageNet for mmpretrain, with error messages that name broken images and wrong labels."""

import logging
import zipfile
from typing import TYPE_CHECKING

import cv2
import mmcv
from mmengine import fileio
from mmengine.logging import print_log
from mmpretrain.datasets import ImageNet as MMPretrainImageNet

from mmctx.errors import UserError
from mmctx.registry import DATASETS

if TYPE_CHECKING:
    from mmpretrain.datasets import BaseDataset as Unchecked
else:
    Unchecked = object


class CheckedImages(Unchecked):
    """Mixin that checks the labels of an mmpretrain data set and names its broken images.

    Args:
        skip_broken (bool): Whether a broken image is replaced by another one, with a warning;
            possible in training only. Defaults to False.
        **kwargs: Arguments of the data set, `split` among them.

    Raises:
        UserError: `skip_broken` is set outside training, where it would change what is measured, or
            a label is out of range.
    """

    def __init__(self, skip_broken: bool = False, **kwargs):
        if skip_broken and kwargs.get('split') != 'train':
            raise UserError("skip_broken=True is for split='train' only")
        self.skip_broken = skip_broken
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Path and label of each image."""
        images = super().load_data_list()
        count = len(self.CLASSES)
        for image in images:
            if not 0 <= image.get('gt_label', 0) < count:
                raise UserError(
                    f'{image["img_path"]} has the label {image["gt_label"]}, but there are '
                    f'{count} classes, numbered from 0'
                )
        return images

    def prepare_data(self, idx: int) -> dict | None:
        """Run the pipeline on an image; return None for a broken one if `skip_broken` is set.

        Raises:
            UserError: The image is broken.
        """
        try:
            return super().prepare_data(idx)
        except Exception as error:
            path = self.get_data_info(idx)['img_path']
            if is_readable(path):
                raise
            message = f'{path} is not a readable image'
            if not self.skip_broken:
                raise UserError(message) from error
            # mmengine's log shows nothing but errors of processes other than the first.
            print_log(f'{message}: another one takes its place', 'current', logging.ERROR)
            return None


def is_readable(path: str) -> bool:
    """Whether there is an image at a path that OpenCV can decode."""
    try:
        return mmcv.imfrombytes(fileio.get(path)) is not None
    except (OSError, cv2.error, zipfile.BadZipFile):
        return False


@DATASETS.register_module()
class ImageNet(CheckedImages, MMPretrainImageNet):
    """mmpretrain's `ImageNet`, which names a broken image and a label out of range.

    Args:
        skip_broken (bool): Whether a broken image is replaced by another one, with a warning;
            possible in training only. Defaults to False.
        **kwargs: Arguments of `mmpretrain.datasets.ImageNet`.
    """
