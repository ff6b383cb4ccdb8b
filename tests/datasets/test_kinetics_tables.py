"""Tables of clips that contradict themselves or the files."""

import pytest

from mmctx.datasets.kinetics_lists import find_splits
from mmctx.errors import UserError

HEADER = 'label,youtube_id,time_start,time_end,split\n'


@pytest.fixture
def find(tmp_path):
    """Find the classes of empty video files by a table."""

    def find(files, rows, text=HEADER, **writing):
        for file in files:
            path = tmp_path / 'videos_train' / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        table = tmp_path / 'table.csv'
        table.write_text(text + ''.join(f'{row}\n' for row in rows), **writing)
        (split,) = find_splits(tmp_path, [table])
        return split.classes

    return find


def test_a_whole_video_of_two_clips_with_different_labels(find):
    rows = ['running,abc,0,10,train', 'jumping,abc,20,30,train']
    with pytest.raises(UserError, match=r"abc.mp4 is 'jumping' and 'running'"):
        find(['abc.mp4'], rows)


def test_a_clip_that_a_table_has_twice_with_different_labels(find):
    rows = ['running,abc,0,10,train', 'jumping,abc,0,10,train']
    with pytest.raises(UserError, match=r'contradict each other for 1 of 1 videos'):
        find(['abc_000000_000010.mp4'], rows)


def test_two_files_of_one_name(find):
    with pytest.raises(UserError, match=r'a/abc.mp4 and b/abc.avi have one name'):
        find(['a/abc.mp4', 'b/abc.avi'], ['running,abc,0,10,train'])


def test_clips_of_one_video_that_are_cut_out_and_rows_that_agree(find):
    rows = ['running,abc,0,10,train', 'jumping,abc,20,30,train', 'running,abc,0,10,train']
    found = find(['abc_000000_000010.mp4', 'abc_000020_000030.mp4'], rows)
    assert found == {'abc_000000_000010.mp4': 'running', 'abc_000020_000030.mp4': 'jumping'}


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('delimiter', [',', '\t'])
def test_a_table_as_excel_saves_it(find, encoding, delimiter):
    rows = ['running,abc,0,10,train'.replace(',', delimiter)]
    header = HEADER.replace(',', delimiter)
    assert find(['abc.mp4'], rows, header, encoding=encoding) == {'abc.mp4': 'running'}
