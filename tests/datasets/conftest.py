"""Real clips, and copies of them that are damaged."""

import av
import pytest


@pytest.fixture(scope='session')
def clips(shared_data):
    """Nine real clips: DivX AVIs, some of whose packets hold no frame of their own, and MP4s."""
    return sorted((shared_data / 'videos').iterdir())


@pytest.fixture(scope='session')
def mp4(clips):
    """An MP4 with 303 frames, and sound."""
    return next(clip for clip in clips if clip.name.startswith('R6ll'))


@pytest.fixture(scope='session')
def xvid(clips):
    """An AVI whose title is not UTF-8, with 84 packets and 83 frames."""
    return next(clip for clip in clips if 'cartwheel' in clip.name)


def remux(source, target, kind='video', **options):
    """Copy one stream of a video to another container, without encoding it again."""
    with av.open(source) as given, av.open(target, 'w', options=options) as written:
        stream = written.add_stream_from_template(getattr(given.streams, kind)[0])
        for packet in given.demux(getattr(given.streams, kind)[0]):
            if packet.dts is not None:
                packet.stream = stream
                written.mux(packet)


def cut(source, target, part=0.5):
    """Copy the beginning of a file."""
    contents = source.read_bytes()
    target.write_bytes(contents[: int(len(contents) * part)])


@pytest.fixture(scope='session')
def containers(mp4, tmp_path_factory):
    """The same stream, 303 frames, in containers that state the number of frames or do not."""
    folder = tmp_path_factory.mktemp('containers')
    remux(mp4, folder / 'index_first.mp4', movflags='faststart')
    remux(mp4, folder / 'fragmented.mp4', movflags='frag_keyframe+empty_moov')
    remux(mp4, folder / 'matroska.mkv')
    remux(mp4, folder / 'transport.ts')
    return folder


@pytest.fixture(scope='session')
def damaged(containers, mp4, xvid, tmp_path_factory):
    """Files that are no whole videos."""
    folder = tmp_path_factory.mktemp('damaged')
    cut(mp4, folder / 'index_lost.mp4')
    cut(containers / 'index_first.mp4', folder / 'half.mp4')
    cut(containers / 'fragmented.mp4', folder / 'half_fragmented.mp4')
    cut(containers / 'matroska.mkv', folder / 'half.mkv')
    cut(xvid, folder / 'half.avi')
    remux(mp4, folder / 'sound.mp4', 'audio')
    (folder / 'empty.mp4').touch()
    (folder / 'text.mp4').write_text('<html>404</html>' * 1000)
    (folder / 'folder.mp4').mkdir()
    return folder
