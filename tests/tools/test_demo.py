"""The demo from rendering to pictures, cut short."""

OPTIONS = [
    '--cfg-options', 'train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=8',
    'val_dataloader.dataset.indices=4', 'test_dataloader.dataset.indices=4',
]  # fmt: skip


def test_demo_leaves_pictures_and_is_quick_the_second_time(tmp_path, run_tool):
    first = run_tool('demo.py', *OPTIONS, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert 'box AP 0.' in first.stdout and 'mask AP 0.' in first.stdout
    pictures = sorted(path.name for path in (tmp_path / 'work_dirs/demo/pictures').iterdir())
    assert pictures[-1] == 'contact_sheet.png' and len(pictures) > 1

    second = run_tool('demo.py', *OPTIONS, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count('done before') == 4
