"""Lists of Kinetics' videos, from class folders and from its own tables."""

from functools import partial
from pathlib import Path

import pytest

from mmctx.datasets.checks import video_report
from mmctx.datasets.checks.video_report import COLUMNS, check_videos
from mmctx.datasets.kinetics_lists import find_splits, number_classes, prepare, read_classes
from mmctx.datasets.video_file import VideoFacts
from mmctx.datasets.video_list import read_video_list
from mmctx.errors import UserError

GOOD = VideoFacts(300, 10.01, 340, 256)
TABLE = """label,youtube_id,time_start,time_end,split
waving,abcdefghijk,5,15,train
"tai, chi",-_cdefghijk,105,115,train
waving,lost_efghij,0,10,train
waving,valdefghijk,7,17,validate
"""


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'1')


@pytest.fixture
def root(tmp_path):
    touch(
        tmp_path, *(f'videos_train/{name}/{i}.mp4' for name in ('zumba', 'air drum') for i in '12')
    )
    touch(tmp_path, 'videos_val/zumba/3.MKV', 'videos_val/zumba/notes.txt', 'videos_val/4.mp4')
    return tmp_path


@pytest.fixture
def checked(monkeypatch):
    """The videos that were looked at; those with `bad` in their names are broken."""
    names = []

    def check(path, full=False):
        names.append(Path(path).name)
        if 'stop' in path:
            raise KeyboardInterrupt
        return VideoFacts(problem='it has no frames') if 'bad' in path else GOOD

    monkeypatch.setattr(video_report, 'check_video', check)
    return names


def test_classes_are_names_of_folders(root):
    train, val = find_splits(root, [])
    assert train.classes == {
        f'{name}/{i}.mp4': name for name in ('zumba', 'air drum') for i in '12'
    }
    # A video in no class folder and a file that is no video do not belong to the set.
    assert val.classes == {'zumba/3.MKV': 'zumba'}
    assert number_classes([train, val]) == {'air drum': 0, 'zumba': 1}
    assert number_classes([val], ['zumba', 'x', 'air drum'])['zumba'] == 0


def test_classes_are_read_from_csv_tables(tmp_path):
    (tmp_path / 'kinetics.csv').write_text(TABLE)
    touch(tmp_path, 'videos_train/abcdefghijk_000005_000015.mp4', 'videos_val/w/valdefghijk.webm')
    touch(tmp_path, 'videos_train/-_cdefghijk_000105_000115.mp4', 'videos_train/other.mp4')
    train, val = find_splits(tmp_path, [tmp_path / 'kinetics.csv'])
    assert train.classes == {
        'abcdefghijk_000005_000015.mp4': 'waving',
        '-_cdefghijk_000105_000115.mp4': 'tai, chi',
    }
    assert train.missing == ['lost_efghij_000000_000010']
    assert (val.classes, val.missing) == ({'w/valdefghijk.webm': 'waving'}, [])


@pytest.mark.parametrize(
    'text', ['label,youtube_id\nwaving,x\n', TABLE.replace('105', 'soon'), TABLE + 'x,y\n']
)
def test_malformed_tables(tmp_path, text):
    (tmp_path / 'kinetics.csv').write_text(text)
    touch(tmp_path, 'videos_train/a.mp4')
    with pytest.raises(UserError, match=r'kinetics\.csv, line \d: expected the columns label, you'):
        find_splits(tmp_path, [tmp_path / 'kinetics.csv'])


def test_nothing_to_list(tmp_path):
    with pytest.raises(UserError, match=r'neither .*videos_train nor .*ln -s train'):
        find_splits(tmp_path, [])
    touch(tmp_path, 'videos_train/1.mp4')
    with pytest.raises(UserError, match='no videos in class folders; without those give --csv'):
        find_splits(tmp_path, [])
    (tmp_path / 'kinetics.csv').write_text(TABLE)
    with pytest.raises(UserError, match='no videos named in the tables'):
        find_splits(tmp_path, [tmp_path / 'kinetics.csv'])
    with pytest.raises(UserError, match=r'cannot read .*lost\.csv'):
        find_splits(tmp_path, [tmp_path / 'lost.csv'])
    touch(tmp_path, 'videos_train/dance/a\nb.mp4')
    with pytest.raises(UserError, match='a list cannot hold such a name'):
        find_splits(tmp_path, [])


def test_classes_that_do_not_match(root):
    splits = find_splits(root, [])
    with pytest.raises(UserError, match=r'1 classes of .* are not among the given ones: air dr'):
        number_classes(splits, ['zumba'])
    touch(root, 'videos_val/yoga/1.mp4')
    with pytest.raises(UserError, match='videos_val are not in the training set: yoga'):
        number_classes(find_splits(root, []))
    for text in ('', 'zumba\nzumba\n'):
        (root / 'classes.txt').write_text(text)
        with pytest.raises(UserError, match='each class once'):
            read_classes(root / 'classes.txt')


def write(root, full=False, skip_broken=False):
    splits = find_splits(root, [])
    return list(prepare(splits, number_classes(splits), root, full, skip_broken, nproc=1))


def test_lists_and_report(root, checked):
    lines = write(root)
    assert any('4 videos of 2 classes, 300 to 300 frames each, 1200 (0.01 h)' in s for s in lines)
    train = read_video_list(str(root / 'kinetics400_train_list_videos.txt'))
    assert train == [
        (f'{name}/{i}.mp4', n) for n, name in enumerate(('air drum', 'zumba')) for i in '12'
    ]
    assert read_video_list(str(root / 'kinetics400_val_list_videos.txt')) == [('zumba/3.MKV', 1)]
    report = (root / 'kinetics400_val_videos.tsv').read_text().splitlines()
    assert report == ['\t'.join(COLUMNS), 'zumba/3.MKV\t1\topened\t300\t10.01\t340\t256\t']


def test_broken_videos_are_named_or_left_out(root, checked):
    touch(root, 'videos_train/zumba/bad.mp4')
    with pytest.raises(UserError, match=r'1 videos are broken: .*zumba/bad\.mp4; .*--skip-broken'):
        write(root)
    assert not list(root.glob('*_list_videos.txt'))
    lines = write(root, skip_broken=True)
    assert f'{root}/videos_train/zumba/bad.mp4 is broken: it has no frames' in lines
    assert len(read_video_list(str(root / 'kinetics400_train_list_videos.txt'))) == 4
    (root / 'videos_val' / 'zumba' / '3.MKV').rename(root / 'videos_val' / 'zumba' / 'bad.mp4')
    with pytest.raises(UserError, match='a split without any good video'):
        write(root, skip_broken=True)


def test_only_what_is_new_or_changed_is_checked_again(root, checked):
    touch(root, 'videos_train/zumba/bad.mp4')
    check = partial(check_videos, root / 'videos_train', report=root / 'report.tsv')
    names = list(find_splits(root, [])[0].classes)
    first = check(names)
    assert len(checked) == 5
    checked.clear()
    assert check(names) == first
    assert checked == ['bad.mp4']
    checked.clear()
    (root / 'videos_train' / 'zumba' / '2.mp4').write_bytes(b'12')
    check(names[:-1] if names[-1] != 'zumba/2.mp4' else names[1:])
    assert '2.mp4' in checked
    checked.clear()
    check(names, full=True)
    assert len(checked) == 5
    checked.clear()
    check(names)
    assert checked == ['bad.mp4']


def test_preparing_resumes_after_an_interruption(root, checked):
    touch(root, 'videos_train/zumba/3 stop.mp4', 'videos_train/zumba/4.mp4')
    report = root / 'report.tsv'
    names = list(find_splits(root, [])[0].classes)
    with pytest.raises(KeyboardInterrupt):
        check_videos(root / 'videos_train', names, report)
    assert len(report.read_text().splitlines()) == 5
    with open(report, 'a') as file:
        file.write('zumba/4.mp4\t1\tope')
    (root / 'videos_train' / 'zumba' / '3 stop.mp4').rename(
        root / 'videos_train' / 'zumba' / '3.mp4'
    )
    checked.clear()
    names = list(find_splits(root, [])[0].classes)
    facts = check_videos(root / 'videos_train', names, report)
    assert checked == ['3.mp4', '4.mp4']
    assert facts == dict.fromkeys(sorted(names), GOOD)
    assert len(report.read_text().splitlines()) == 7


def test_a_foreign_file_is_no_report(root, checked):
    (root / 'report.tsv').write_text('precious\n')
    with pytest.raises(UserError, match='not a report of videos'):
        check_videos(root / 'videos_train', [], root / 'report.tsv')
    assert (root / 'report.tsv').read_text() == 'precious\n'
