"""Classify images, detect objects in them, or recognise actions in videos."""

import argparse
import json
from pathlib import Path

from mmctx.cli.options import add_network_options, class_names
from mmctx.errors import UserError
from mmctx.files import atomic_write, picture_names


def parse_args() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'inputs', nargs='+', metavar='FILE|FOLDER', help='images or, for a recognizer, videos'
    )
    add_network_options(parser)
    parser.add_argument(
        '--out',
        metavar='FOLDER',
        help='folder for predictions.json and pictures/ (without it, lines are only printed)',
    )
    parser.add_argument(
        '--no-pictures', action='store_true', help='write no pictures into the folder'
    )
    parser.add_argument('--batch-size', type=int, default=8, help='number of files at once (8)')
    parser.add_argument(
        '--num-workers', type=int, default=0, help='number of processes that load files (0)'
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='lowest score of a detected object (0.3)'
    )
    parser.add_argument(
        '--top-k',
        type=int,
        default=5,
        help='number of classes for an image or video, the most likely ones (5)',
    )
    args = parser.parse_args()
    for name in ('batch_size', 'top_k'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} should be at least 1')
    return args


def main() -> None:
    """Run the command."""
    args = parse_args()
    # Imported after the arguments are parsed, as these import torch.
    from rich.console import Console
    from rich.progress import track

    from mmctx.apis.predicting import Predictor, find_files
    from mmctx.apis.predictions import in_words

    predictor = Predictor(args.checkpoint, args.config, class_names(args), args.device)
    files = find_files(args.inputs, predictor.kind)
    pictures = None
    if args.out and not args.no_pictures:
        pictures = picture_names(files, Path(args.out) / 'pictures', '.jpg')
    results = predictor(
        files, args.batch_size, args.num_workers, args.score_thr, args.top_k, pictures
    )
    progress = Console(stderr=True)
    shown = bool(args.out) and progress.is_terminal
    kept = []
    for result in track(
        results, 'Predicting', len(files), console=progress, disable=not shown, transient=True
    ):
        kept.append(result)
        if not shown:
            print(in_words(result), flush=True)
    if args.out:
        path = Path(args.out) / 'predictions.json'
        with atomic_write(path) as file:
            file.write(json.dumps(kept, indent=1, ensure_ascii=False).encode())
        print(f'{len(kept)} predictions are in {path}')
    broken = [result['path'] for result in kept if 'error' in result]
    if broken:
        raise UserError(f'{len(broken)} of {len(files)} files could not be read: {broken[0]} ...')
