"""Labelled videos for mmaction2, with error messages that name broken videos and lines."""

import logging
import os

from mmaction.datasets import VideoDataset as MMActionVideoDataset
from mmengine.logging import print_log

from mmctx.errors import UserError
from mmctx.registry import DATASETS

from .video_file import VideoError
from .video_list import read_video_list


@DATASETS.register_module()
class VideoDataset(MMActionVideoDataset):
    """mmaction2's `VideoDataset`, which names broken videos and malformed lines of its list.

    The last word of a line is the label; everything before it is the file name, which may contain
    spaces.

    Args:
        skip_broken (bool, optional): Whether an unreadable or truncated video is replaced by
            another one, with a warning; possible in training only. Defaults to None: True in
            training.
        num_classes (int, optional): Number of classes, which labels have to be below. Defaults to
            None, any label.
        max_refetch (int): Number of broken videos in a row after which the run gives up. Defaults
            to 100.
        **kwargs: Arguments of `mmaction.datasets.VideoDataset`.

    Raises:
        UserError: `skip_broken` is set with `test_mode`, where it would change what is measured, or
            a line of the list is malformed or its label out of range.
    """

    def __init__(
        self,
        ann_file: str,
        pipeline: list,
        skip_broken: bool | None = None,
        test_mode: bool = False,
        max_refetch: int = 100,
        **kwargs,
    ):
        if skip_broken and test_mode:
            raise UserError('skip_broken=True is for training only, not for test_mode=True')
        self.skip_broken = not test_mode if skip_broken is None else skip_broken
        self._broken_in_a_row = 0
        super().__init__(ann_file, pipeline, test_mode=test_mode, max_refetch=max_refetch, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Path and label of each video."""
        if self.multi_class:
            return super().load_data_list()
        prefix = self.data_prefix.get('video') or ''
        return [
            dict(filename=os.path.join(prefix, name), label=label)
            for name, label in read_video_list(self.ann_file, self.num_classes, self.delimiter)
        ]

    def prepare_data(self, idx: int) -> dict | None:
        """Run the pipeline on a video; return None for a broken one if `skip_broken` is set.

        Raises:
            VideoError: The video is broken. If broken ones are skipped: the `max_refetch` videos
                before it were broken as well.
        """
        try:
            data = super().prepare_data(idx)
        except VideoError as error:
            if not self.skip_broken:
                raise
            self._broken_in_a_row += 1
            if self._broken_in_a_row > self.max_refetch:
                raise VideoError(
                    f'{error} (and so were the {self.max_refetch} videos of {self.ann_file} that '
                    'were drawn before it)'
                ) from error
            # mmengine's log shows nothing but errors of processes other than the first.
            print_log(f'{error}; another one takes its place', 'current', logging.ERROR)
            return None
        self._broken_in_a_row = 0
        return data
