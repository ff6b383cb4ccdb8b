"""Render a small data set, train a contextual Mask R-CNN on it, test it and draw what it found.

A second run reuses what is finished; an interrupted one goes on from its last checkpoint.
"""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs' / 'mask_rcnn_ctx_convnext_shapes.py'
SOURCES = (CONFIG, 'configs/_base_/shapes_instance.py', 'mmctx/datasets/shapes.py')
STATE = 'demo.json'
FOLLOWERS = {'train': ('test', 'draw'), 'test': ('draw',)}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, default=Path('data/shapes'), help='(data/shapes)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--fresh', action='store_true', help='forget earlier runs and train again')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='change settings of the config, as with tools/train.py',
    )
    return parser.parse_args()


class Progress:
    """What is finished, in `demo.json` of the work dir, so that a later run can go on.

    Args:
        work_dir (Path): Folder of the demo; emptied if it holds a run of other settings.
        fingerprint (str): Digest of everything the run depends on.
        fresh (bool): Whether to start over in any case.
    """

    def __init__(self, work_dir, fingerprint, fresh):
        self.file = work_dir / STATE
        self.state = {'fingerprint': fingerprint}
        if self.file.is_file():
            found = json.loads(self.file.read_text())
            if not fresh and found['fingerprint'] == fingerprint:
                self.state = found
                return
            print(f'starting over in {work_dir}', flush=True)
            shutil.rmtree(work_dir)
        work_dir.mkdir(parents=True, exist_ok=True)
        self.save()

    def save(self, **news):
        self.state.update(news)
        self.file.write_text(json.dumps(self.state, indent=2))

    def step(self, name, title, product, work):
        """Do a step unless it is done; remember what it returns and how long it took.

        Args:
            name (str): Key of the step in the file.
            title (str): What the user reads.
            product (Path): What the step leaves behind; if it is gone, the step is done again.
            work (callable): The step, called without arguments.
        """
        if name in self.state and product.exists():
            print(f'== {title}: done before', flush=True)
            return self.state[name]['result']
        print(f'== {title}', flush=True)
        for later in FOLLOWERS.get(name, ()):
            self.state.pop(later, None)
        began = time.monotonic()
        result = work()
        self.save(**{name: {'result': result, 'seconds': time.monotonic() - began}})
        return result


def run(tool, *arguments):
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    print('$', shlex.join(['python', f'tools/{tool}', *command[2:]]), flush=True)
    subprocess.run(command, check=True)


def render(data):
    run('dataset_converters/render_shapes.py', data)


def train(work_dir, options):
    resume = ['--resume'] if (work_dir / 'last_checkpoint').is_file() else []
    run('train.py', CONFIG, '--work-dir', work_dir, *resume, *options)
    return os.path.relpath((work_dir / 'last_checkpoint').read_text())


def test(checkpoint, predictions, options):
    folder = predictions.parent / 'test'
    run('test.py', CONFIG, checkpoint, '--work-dir', folder, '--out', predictions, *options)
    logs = [file for file in folder.glob('*/*.json') if file.stem == file.parent.name]
    figures = json.loads(max(logs, key=lambda file: file.stat().st_mtime).read_text())
    return {'box': figures['coco/bbox_mAP'], 'mask': figures['coco/segm_mAP']}


def draw(predictions, pictures):
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    from mmengine import load
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mmctx.apis.visualize import write_pictures
    from mmctx.registry import DATASETS

    cfg = Config.fromfile(CONFIG)
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    write_pictures(dataset, load(predictions), pictures)


def report(state, data, work_dir):
    def seconds(*names):
        return f'{sum(state[name]["seconds"] for name in names):5.0f} s'

    figures = state['test']['result']
    pictures = work_dir / 'pictures'
    count = len(list(pictures.glob('*.png'))) - 1
    print(
        f"""
What the demo did
  {seconds('render')}  rendered an instance-segmentation set of its own: {data}
  {seconds('train')}  trained a small contextual Mask R-CNN from scratch: {state['train']['result']}
  {seconds('test')}  tested it: box AP {figures['box']:.3f}, mask AP {figures['mask']:.3f} \
(COCO AP@[.5:.95], validation images)
  {seconds('draw')}  drew {count} validation images, ground truth beside prediction: {pictures}
  {seconds('render', 'train', 'test', 'draw')}  in all

See {pictures / 'contact_sheet.png'}; train again with --fresh."""
    )


def main():
    args = parse_args()
    # The config reads it, here and in the tools.
    os.environ['SHAPES_ROOT'] = str(args.data)
    # Threads that spin for long slow training many times down where others use the same cores;
    # threads that do not spin at all double its time where nobody does.
    os.environ.setdefault('GOMP_SPINCOUNT', '20000')
    options = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
    content = b''.join((ROOT / source).read_bytes() for source in SOURCES)
    identity = content + json.dumps([str(args.data), *options]).encode()
    progress = Progress(args.work_dir, hashlib.sha256(identity).hexdigest(), args.fresh)
    work_dir, step = args.work_dir, progress.step
    step('render', 'rendering', args.data / 'shapes.json', lambda: render(args.data))
    checkpoint = step(
        'train', 'training', work_dir / 'last_checkpoint', lambda: train(work_dir, options)
    )
    predictions = work_dir / 'predictions.pkl'
    step('test', 'testing', predictions, lambda: test(checkpoint, predictions, options))
    pictures = work_dir / 'pictures'
    step('draw', 'drawing', pictures / 'contact_sheet.png', lambda: draw(predictions, pictures))
    report(progress.state, args.data, work_dir)


if __name__ == '__main__':
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit('interrupted; the same command goes on from the last checkpoint')
