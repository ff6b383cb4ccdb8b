"""Write a trained network as ONNX, or as a program of torch.export (.pt2)."""

import argparse
import math
from pathlib import Path

from mmctx.errors import UserError

# Exporters sum in another order, which costs up to half of float32's digits.
TOLERANCE = 1e-4


def parse_args() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or address')
    parser.add_argument('--to', choices=['onnx', 'pt2'], default='onnx', help='format (onnx)')
    parser.add_argument(
        '--out', metavar='FILE', help="file to write (the checkpoint's name in the current folder)"
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(224, 224),
        metavar=('HEIGHT', 'WIDTH'),
        help='size of the example in pixels (224 224)',
    )
    parser.add_argument(
        '--static',
        action='store_true',
        help='make a file for two images (a recognizer: two clips) of this size alone',
    )
    parser.add_argument(
        '--exporter',
        choices=['dynamo', 'torchscript'],
        default='dynamo',
        help='how ONNX is made: dynamo, by torch.export, or torchscript, by tracing (dynamo)',
    )
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    args = parse_args()
    # After the arguments, as these bring torch along.
    from mmctx.apis.exporting import export
    from mmctx.apis.predicting import load_network

    path = Path(args.out or f'{Path(args.checkpoint).stem}.{args.to}')
    if path.suffix != f'.{args.to}':
        raise UserError(f'--out {path} should end in .{args.to}')
    model = load_network(args.checkpoint, args.config)[0]
    difference = export(model, path, tuple(args.size), not args.static, args.exporter)
    if math.isnan(difference):
        print(f'{path} is written; with onnxruntime installed it is compared with the network')
        return
    print(f'{path} is written; its results differ from the network by {difference:.1e}')
    if difference > TOLERANCE:
        raise RuntimeError(f'{path} computes something else than the network')
