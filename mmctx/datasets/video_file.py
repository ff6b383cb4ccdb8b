"""Videos decoded by PyAV from the start, frame by frame, so that frame i is always the i-th one.

There is no seeking, on purpose: the time stamps of many AVIs are not in order, and the clips that
networks are trained on have a key frame only every few seconds.
"""

from collections.abc import Iterable
from io import BytesIO
from typing import NamedTuple

import numpy as np
from mmengine import fileio
from mmengine.fileio import LocalBackend

from mmctx.errors import UserError

from .video_display import display_of

REFUSAL = ' is not a readable video: '
# Seconds by which a stream may fall short of the duration that its container states.
MAY_END_EARLY = 1.0


class VideoError(UserError):
    """A video that cannot be read up to the wanted frame; the message names it and the reason."""


class Video:
    """The video stream of a file, open until :meth:`close`.

    Args:
        path (str): A local path, or what mmengine's file functions accept.
        backend_args (dict, optional): Options of mmengine's file functions. Defaults to None.
        num_threads (int): Number of threads of the decoder; 0 means one for each CPU. Defaults to
            1.

    Attributes:
        total_frames (int): Number of frames that the container states or, if it states none, number
            of its packets. A few packets may contain no frame of their own, as in DivX AVIs.
        fps (float): Mean number of frames per second; 0 if it is unknown.

    Raises:
        VideoError: The file is missing, is not a video, or its container is cut off.
    """

    def __init__(self, path: str, backend_args: dict | None = None, num_threads: int = 1):
        self.path = str(path)
        self.backend_args = backend_args
        self.num_threads = num_threads
        self._open()
        self.fps = float(self.stream.average_rate or 0)
        self.total_frames = self.stream.frames or self._count_packets()

    def _open(self):
        import av

        backend = fileio.get_file_backend(self.path, backend_args=self.backend_args)
        try:
            # Without `file:` FFmpeg takes the part of a name before a colon for a protocol.
            source = (
                f'file:{self.path}'
                if isinstance(backend, LocalBackend)
                else BytesIO(backend.get(self.path))
            )
            # The titles of some AVIs are not encoded in UTF-8.
            self.container = av.open(source, metadata_errors='replace')
        except (av.FFmpegError, OSError) as error:
            raise self._error(error.strerror) from error
        if not self.container.streams.video:
            self.close()
            raise self._error('it has no video stream')
        self.stream = self.container.streams.video[0]
        self.stream.codec_context.thread_count = self.num_threads
        self._packets_read = 0

    def close(self):
        """Close the file; frames that have been read stay valid."""
        self.container.close()

    def _error(self, reason):
        return VideoError(f'{self.path}{REFUSAL}{reason}')

    def _packets(self):
        for packet in self.container.demux(self.stream):
            if packet.is_corrupt:
                raise self._error('it is damaged or has been cut off')
            self._packets_read += packet.size > 0
            yield packet

    def _count_packets(self):
        end = 0.0
        for packet in self._packets():
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        count, stated = self._packets_read, self._stated_duration()
        self.close()
        if end < stated - MAY_END_EARLY:
            raise self._error(f'it ends after {end:.1f} of {stated:.1f} s')
        if not count:
            raise self._error('it has no frames')
        self._open()
        return count

    def _stated_duration(self):
        """Duration in seconds that Matroska and WebM state for this stream; 0 if none is stated."""
        hours, _, rest = self.stream.metadata.get('DURATION', '').partition(':')
        minutes, _, seconds = rest.partition(':')
        try:
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        except ValueError:
            return 0.0

    def decode(self):
        """Decode the video once, from its first frame.

        Yields:
            av.VideoFrame: The frames in the order of display.

        Raises:
            VideoError: A frame is damaged, or there are fewer packets than the container states.
        """
        import av

        try:
            for packet in self._packets():
                yield from packet.decode()
        except av.FFmpegError as error:
            raise self._error(error.strerror) from error
        self.check_length()

    def check_length(self):
        """Go through the packets that have not been read yet, without decoding them.

        Raises:
            VideoError: There are fewer packets than the container states.
        """
        for _ in self._packets():
            pass
        if self._packets_read < self.total_frames:
            raise self._error(f'it ends after {self._packets_read} of {self.total_frames} frames')

    def read(self, indices: Iterable[int]) -> list[np.ndarray]:
        """Decode the frames with the given numbers; other frames are not kept in memory.

        Args:
            indices (Iterable[int]): Frame numbers below `total_frames`, in any order, also
                repeated. For packets without a frame of their own the last frame is returned.

        Returns:
            list[np.ndarray]: RGB images, (H, W, 3) uint8, turned and scaled as the container
            states, all as large as the first frame, each with memory of its own.

        Raises:
            VideoError: The video ends or is damaged before the last wanted frame.
        """
        indices = [int(index) for index in indices]
        wanted, last = set(indices), max(indices)
        images: dict[int, np.ndarray] = {}
        frame = display = None
        for number, frame in enumerate(self.decode()):
            display = display or display_of(self.stream, frame)
            if number in wanted:
                images[number] = display.show(frame)
            if number == last:
                break
        if frame is None or display is None:
            raise self._error('it has no frames')
        if last not in images:
            images[last] = display.show(frame)
        return [images.get(index, images[last]).copy() for index in indices]


class VideoFacts(NamedTuple):
    """Result of :func:`check_video`.

    Attributes:
        frames (int): Number of frames if all were decoded; otherwise number of packets, which may
            be a few more. 0 for a broken video.
        seconds (float): Duration at the mean frame rate; 0 if that is unknown.
        width (int): Width of the first frame in pixels, as it is to be shown.
        height (int): Height of the first frame in pixels, as it is to be shown.
        problem (str): Reason why the video cannot be used; '' for a good video.
    """

    frames: int = 0
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    problem: str = ''


def check_video(path: str, full: bool = False) -> VideoFacts:
    """Check that a video can be read.

    Args:
        path (str): Local path, or what mmengine's file functions accept.
        full (bool): Whether to decode every frame. Otherwise only the first frame is decoded and
            the packets are counted, which finds videos that are cut off. Defaults to False.

    Returns:
        VideoFacts: Size and length of the video, or its problem.
    """
    try:
        video = Video(path)
    except VideoError as error:
        return _broken(error)
    try:
        frames = video.decode()
        first = next(frames, None)
        if first is None:
            return VideoFacts(problem='it has no frames')
        width, height = display_of(video.stream, first).size
        if full:
            count = 1 + sum(1 for _ in frames)
        else:
            count = video.total_frames
            video.check_length()
    except VideoError as error:
        return _broken(error)
    finally:
        video.close()
    return VideoFacts(count, count / video.fps if video.fps else 0.0, width, height)


def _broken(error):
    return VideoFacts(problem=str(error).partition(REFUSAL)[2])
