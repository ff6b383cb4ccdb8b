"""Pipeline steps that read videos by PyAV, and sample clips from them, for mmaction2."""

import numpy as np
from mmaction.datasets.transforms import SampleFrames
from mmcv.transforms import BaseTransform

from mmctx.errors import UserError
from mmctx.registry import TRANSFORMS

from .video_file import Video


@TRANSFORMS.register_module()
class PyAVInit(BaseTransform):
    """Open a video.

    mmaction2's step of this name refuses AVIs whose titles are not encoded in UTF-8, and trusts the
    stated number of frames even if it is 0.

    Required keys: `filename`. Added keys: `video_reader`, `total_frames`, `avg_fps`.

    Args:
        num_threads (int): Number of threads of the decoder; 0 means one for each CPU. Defaults to
            1.
        backend_args (dict, optional): Options of mmengine's file functions. Defaults to None.

    Raises:
        VideoError: The video cannot be opened.
    """

    def __init__(self, num_threads: int = 1, backend_args: dict | None = None):
        self.num_threads = num_threads
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Open the video that `filename` names."""
        video = Video(results['filename'], self.backend_args, self.num_threads)
        results.update(
            video_reader=video, total_frames=video.total_frames, avg_fps=video.fps or None
        )
        return results

    def __repr__(self):
        return f'{type(self).__name__}(num_threads={self.num_threads})'


@TRANSFORMS.register_module()
class PyAVDecode(BaseTransform):
    """Decode the sampled frames and close the video.

    mmaction2's step of this name keeps every frame up to the last wanted one in memory, and where a
    truncated video ends too early it silently begins again from the first frame.

    Required keys: `video_reader`, `frame_inds`. Added keys: `imgs` (list of (H, W, 3) uint8 RGB),
    `original_shape`, `img_shape`.

    Raises:
        VideoError: The video ends or is damaged before the last sampled frame.
    """

    def transform(self, results: dict) -> dict:
        """Decode the frames whose numbers are in `frame_inds`."""
        video = results.pop('video_reader')
        try:
            results['imgs'] = video.read(np.ravel(results['frame_inds']))
        finally:
            video.close()
        results['original_shape'] = results['img_shape'] = results['imgs'][0].shape[:2]
        return results

    def __repr__(self):
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class SampleShiftedClips(SampleFrames):
    """Sample several clips, each from the whole video, for tests.

    The video is divided into `num_clips` equal parts. Of each part, clip j takes the frame at (j +
    1/2) / `shifts` of its length. With one shift the clip is that of `SampleFrames`.

    Args:
        num_clips (int): Number of frames of each clip.
        shifts (int): Number of clips. Defaults to 10.
        clip_len (int): Number of consecutive frames at each position, which must be 1. Defaults to
            1.
    """

    def __init__(self, num_clips: int, shifts: int = 10, clip_len: int = 1):
        if clip_len != 1 or shifts < 1:
            raise UserError(f'clip_len must be 1 and shifts at least 1, got {clip_len}, {shifts}')
        super().__init__(clip_len=clip_len, num_clips=num_clips, test_mode=True)
        self.shifts = shifts

    def _get_test_clips(self, num_frames, ori_clip_len):
        part = num_frames / self.num_clips
        shifts = (np.arange(self.shifts) + 0.5) / self.shifts
        return (part * (shifts[:, None] + np.arange(self.num_clips))).ravel()
