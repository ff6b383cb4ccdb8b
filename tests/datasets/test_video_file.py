"""Videos: every frame is exactly the one asked for, and no damage goes unnoticed."""

import shutil
from zipfile import ZipFile

import av
import cv2
import numpy as np
import pytest

from mmctx.datasets.video_file import Video, VideoError, check_video
from mmctx.datasets.zip_backend import zip_path


def all_frames(path):
    with av.open(path, metadata_errors='replace') as container:
        return [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]


def read(path, indices, **options):
    video = Video(path, **options)
    try:
        return video.read(indices)
    finally:
        video.close()


def test_any_frames_are_those_of_a_sequential_decode(clips):
    for path in clips:
        frames = all_frames(path)
        indices = np.random.default_rng(0).integers(0, len(frames), 12).tolist()
        for wanted in ([*indices, indices[0]], [0], [len(frames) - 1]):
            for index, image in zip(wanted, read(path, wanted), strict=True):
                assert np.array_equal(image, frames[index])


def test_opencv_decodes_the_same_frames(clips):
    for path in clips:
        capture = cv2.VideoCapture(str(path))
        count = 0
        for frame in all_frames(path):
            found, image = capture.read()
            assert found
            # One frame off, the difference would be 1.6 to 19 on average.
            assert count % 10 or cv2.absdiff(frame[..., ::-1], image).mean() < 0.5
            count += 1
        assert not capture.read()[0]
        assert abs(Video(path).total_frames - count) <= 1


def test_threads_do_not_change_frames(mp4):
    wanted = [0, 100, 302]
    for one, four in zip(read(mp4, wanted), read(mp4, wanted, num_threads=4)):
        assert np.array_equal(one, four)


def test_the_last_frame_stands_in_for_packets_without_one(xvid):
    frames = all_frames(xvid)
    video = Video(xvid)
    assert (video.total_frames, len(frames)) == (84, 83)
    assert np.array_equal(video.read([83])[0], frames[82])


def test_repeated_frames_have_memory_of_their_own(mp4):
    first, second = read(mp4, [5, 5])
    first[:] = 0
    assert second.any()


def test_no_more_is_decoded_than_needed(mp4):
    video = Video(mp4)
    video.read([3])
    assert video._packets_read < 20


def test_containers_that_do_not_state_the_number_of_frames(containers, mp4):
    with av.open(containers / 'matroska.mkv') as container:
        assert container.streams.video[0].frames == 0
    expected = read(mp4, [7, 302])
    for path in sorted(containers.iterdir()):
        assert Video(path).total_frames == 303
        assert check_video(path) == check_video(path, full=True) == (303, 10.1, 340, 256, '')
        for image, reference in zip(read(path, [7, 302]), expected):
            assert np.array_equal(image, reference)


def test_frames_of_another_size_take_the_first_ones(tmp_path):
    contents = b''
    for side in (64, 32):
        with av.open(tmp_path / 'part.m2v', 'w') as container:
            stream = container.add_stream('mpeg2video', rate=25)
            stream.width = stream.height = side
            for shade in range(5):
                picture = np.full((side, side, 3), 40 * shade, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
            container.mux(stream.encode())
        contents += (tmp_path / 'part.m2v').read_bytes()
    (tmp_path / 'both.m2v').write_bytes(contents)
    video = Video(tmp_path / 'both.m2v')
    images = video.read(range(video.total_frames))
    assert {image.shape for image in images} == {(64, 64, 3)}
    sizes = {frame.shape[0] for frame in all_frames(tmp_path / 'both.m2v')}
    assert sizes == {64, 32}


def test_names_that_ffmpeg_would_take_for_something_else(mp4, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('http:clip 1.mp4', 'a%03d.mp4', 'ünïcode.mp4'):
        shutil.copy(mp4, name)
        assert check_video(name).frames == 303


def test_inside_an_archive(mp4, tmp_path):
    with ZipFile(tmp_path / 'clips.zip', 'w') as archive:
        archive.write(mp4, 'train/a b.mp4')
        archive.writestr('train/bad.mp4', b'no video')
    image, reference = read(zip_path(tmp_path / 'clips.zip', 'train/a b.mp4'), [9]), read(mp4, [9])
    assert np.array_equal(image, reference)
    for name in ('train/bad.mp4', 'train/lost.mp4'):
        path = zip_path(tmp_path / 'clips.zip', name)
        with pytest.raises(VideoError, match=f'{name} is not a readable video: .+'):
            Video(path)


REASONS = {
    'empty.mp4': 'Invalid data',
    'folder.mp4': 'Is a directory',
    'half.avi': 'cut off',
    'half.mkv': r'ends after 5\.1 of 10\.1 s',
    'half.mp4': 'cut off',
    'half_fragmented.mp4': 'cut off',
    'index_lost.mp4': 'Invalid data',
    'lost.mp4': 'No such file',
    'sound.mp4': 'no video stream',
    'text.mp4': '(Invalid data|no video stream)',
}


@pytest.mark.parametrize('name', REASONS)
def test_damage_is_named(damaged, name):
    path = damaged / name
    match = f'^{path} is not a readable video: .*{REASONS[name]}'
    with pytest.raises(VideoError, match=match):
        read(path, [80 if name.endswith('avi') else 299])
    for full in (False, True):
        facts = check_video(path, full)
        assert facts.problem and facts.frames == 0
        assert str(path) not in facts.problem


def test_every_damaged_file_is_tested(damaged):
    assert {path.name for path in damaged.iterdir()} == REASONS.keys() - {'lost.mp4'}


def test_frames_before_the_damage_can_be_read(damaged, mp4):
    assert np.array_equal(read(damaged / 'half.mp4', [50]), read(mp4, [50]))


def test_fewer_packets_than_stated(mp4):
    video = Video(mp4)
    video.total_frames = 310
    with pytest.raises(VideoError, match='it ends after 303 of 310 frames'):
        video.read([305])


def test_damage_within_is_found_by_decoding_all(containers, tmp_path):
    contents = bytearray((containers / 'index_first.mp4').read_bytes())
    contents[200_000:260_000] = bytes(60_000)
    (tmp_path / 'scratched.mp4').write_bytes(contents)
    assert not check_video(tmp_path / 'scratched.mp4').problem
    assert 'Invalid data' in check_video(tmp_path / 'scratched.mp4', full=True).problem


def test_facts_of_the_clips(clips):
    frames = {path.name.split('_')[0]: check_video(path, full=True).frames for path in clips}
    assert frames == {
        'R6llTwEh07w.mp4': 303,
        'RATRACE': 72,
        'SOX5yA1l24A.mp4': 332,
        'SchoolRulesHowTheyHelpUs': 74,
        'TrumanShow': 48,
        'WUzgd7C1pWA.mp4': 327,
        'hmdb51': 83,
        'v': 251,
    }
