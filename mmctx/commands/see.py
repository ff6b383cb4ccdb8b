"""Draw what the context of a trained network did: classes, sampling points, kernels, maps."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mmctx.cli.options import add_network_options, class_names
from mmctx.errors import UserError
from mmctx.files import picture_names

if TYPE_CHECKING:
    from mmctx.apis.seeing import ContextViewer
    from mmctx.apis.seeing.figures import Draw

FIGURES = {
    'cascade': 'which classes remain after each stage, and where the true class falls out',
    'sampling': 'where a contextual convolution samples, and its effective receptive field',
    'kernels': 'how much Δw changes the kernels, by class',
    'cam': "Grad-CAM, beside a vanilla network's",
    'tsne': 't-SNE of the class embeddings: kept at each stage blue, the true class red',
    'similarity': "similarities of the class embeddings, beside a vanilla classifier's",
}


def parse_args() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog='mmctx see',
        description=__doc__,
        epilog='\n'.join(f'{name:11} {purpose}' for name, purpose in FIGURES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('figure', choices=FIGURES, help='what to draw, see below')
    parser.add_argument(
        'inputs',
        nargs='*',
        metavar='FILE|FOLDER',
        help='images, of a recognizer videos, whose middle frame is shown; none for similarity',
    )
    add_network_options(parser)
    parser.add_argument('--out', required=True, metavar='FOLDER', help='folder for the pictures')
    parser.add_argument(
        '--format', choices=('png', 'svg', 'pdf'), default='png', help='type of the pictures (png)'
    )
    parser.add_argument(
        '--label',
        help='true class of the images, by name or number (that which their folder is named after)',
    )
    where = parser.add_argument_group('which convolution (sampling, kernels)')
    where.add_argument('--stage', type=int, choices=(1, 2, 3, 4), help='its stage (4)')
    where.add_argument('--block', type=int, default=0, help='its block in the stage, from 0 (0)')
    where.add_argument('--layer', metavar='NAME', help='its name, instead of stage and block')
    where.add_argument(
        '--at',
        nargs='+',
        type=place,
        metavar='X,Y',
        help='positions, as shares of width and height from 0 to 1 (the centre; of a detector the '
        'centres of its two most certain objects)',
    )
    vanilla = parser.add_argument_group('the vanilla network (cam, similarity)')
    vanilla.add_argument('--vanilla', metavar='CHECKPOINT', help='checkpoint to compare with')
    vanilla.add_argument('--vanilla-config', metavar='CONFIG', help='its config file')
    args = parser.parse_args()
    if args.figure == 'similarity' and args.inputs:
        parser.error('similarity compares classes and takes no images')
    if args.figure != 'similarity' and not args.inputs:
        parser.error(f'{args.figure} needs images')
    return args


def place(text: str) -> tuple[float, float]:
    """A position that is given as `X,Y`."""
    x, y = map(float, text.split(','))
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise argparse.ArgumentTypeError(f'{text} is not from 0 to 1')
    return x, y


def main() -> None:
    """Run the command."""
    args = parse_args()
    # After the arguments, as these bring torch along.
    from mmctx.apis.predicting import Predictor, find_files
    from mmctx.apis.seeing import ContextViewer
    from mmctx.apis.seeing.figures import save_kernels, save_similarities
    from mmctx.models.context_record import choose_convolution

    def viewer_of(checkpoint: str, config: str | None) -> ContextViewer:
        return ContextViewer(Predictor(checkpoint, config, class_names(args), args.device))

    viewer = viewer_of(args.checkpoint, args.config)
    vanilla = viewer_of(args.vanilla, args.vanilla_config) if args.vanilla else None
    out = Path(args.out)
    alone = out / f'{args.figure}.{args.format}'
    if args.figure == 'similarity':
        save_similarities(viewer, vanilla, alone)
        print(alone)
        return
    files = find_files(args.inputs, viewer.predictor.kind)
    layer = ''
    if args.figure in ('sampling', 'kernels'):
        layer = choose_convolution(viewer.backbone, args.stage, args.block, args.layer)
    if args.figure == 'kernels':
        subjects = [viewer.load(file, args.label) for file in files]
        save_kernels(viewer, subjects, layer, alone)
        print(alone)
        return
    draw = drawing_of(args, viewer, vanilla, layer)
    paths = picture_names(files, out, f'.{args.figure}.{args.format}')
    failed = []
    for file in files:
        try:
            draw(viewer.load(file, args.label), paths[file])
        except UserError as error:
            if len(files) == 1:
                raise
            failed.append(file)
            print(f'{file}: {error}', flush=True)
        else:
            print(paths[file], flush=True)
    if failed:
        raise UserError(f'{len(failed)} of {len(files)} files have no picture: {failed[0]} ...')


def drawing_of(
    args: argparse.Namespace,
    viewer: 'ContextViewer',
    vanilla: 'ContextViewer | None',
    layer: str,
) -> 'Draw':
    """A function that draws the figure asked for of a picture into a file."""
    from mmctx.apis.seeing import figures

    if args.figure == 'cascade':
        return figures.drawing_cascades(viewer)
    if args.figure == 'sampling':
        return figures.drawing_sampling(viewer, layer, args.at)
    if args.figure == 'cam':
        return figures.drawing_cams(viewer, vanilla)
    return figures.drawing_tsne(viewer)
