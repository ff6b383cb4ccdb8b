"""The demo from rendering to pictures, cut short."""

import os
import subprocess
import sys

IMAGES, SEEN = '--num-train 4 --num-val 2', '000000 000001'
OPTIONS = (
    '--cfg-options train_cfg.max_epochs=1 train_dataloader.batch_size=4 '
    'model.test_cfg.rpn.max_per_img=20'
)


def test_demo_leaves_pictures_and_does_nothing_twice(repo, tmp_path):
    def make(*arguments):
        command = [
            'make',
            '--no-print-directory',
            '-f',
            repo / 'tools' / 'demo.mk',
            f'PYTHON={sys.executable}',
        ]
        return subprocess.run(
            [*command, f'IMAGES={IMAGES}', f'OPTIONS={OPTIONS}', f'SEEN={SEEN}', *arguments],
            cwd=tmp_path,
            env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(repo)},
            capture_output=True,
            text=True,
        )

    first = make()
    assert first.returncode == 0, first.stderr
    assert 'coco/segm_mAP: 0.' in first.stdout
    pictures = sorted(path.name for path in (tmp_path / 'work_dirs/demo/pictures').iterdir())
    assert pictures[-1] == 'contact_sheet.png' and len(pictures) > 1

    context = sorted(path.name for path in (tmp_path / 'work_dirs/demo/context').glob('*.png'))
    assert context == [f'00000{index}.jpg.sampling.png' for index in range(2)]

    second = make()
    assert second.returncode == 0, second.stderr
    assert second.stdout.startswith('Pictures: work_dirs/demo/pictures/contact_sheet.png')

    # Another data set or config: training starts over.
    (tmp_path / 'data' / 'shapes' / 'shapes.json').touch()
    planned = make('-n').stdout
    steps = ('rm -r work_dirs/demo', 'tools/train.py', 'tools/test.py', 'draw_predictions.py')
    assert sorted(steps, key=planned.index) == list(steps)
    assert 'render_shapes.py' not in planned
