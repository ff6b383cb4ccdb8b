"""Convert a checkpoint of the authors' released code for an mmctx classifier."""

import argparse
from pathlib import Path

from mmctx.cli.tool import run_tool
from mmctx.errors import UserError


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='checkpoint of the released code')
    parser.add_argument('dst', help='file to write')
    parser.add_argument(
        '--ema',
        action=argparse.BooleanOptionalAction,
        help='take the moving average of the weights, or the weights themselves (the moving '
        'average if there is one)',
    )
    parser.add_argument(
        '--considered',
        nargs=3,
        type=int,
        metavar=('N2', 'N3', 'N4'),
        help='classes kept after stages 1, 2, 3, as it was trained (1/2, 1/5, 1/20 of all)',
    )
    parser.add_argument('--force', action='store_true', help='replace an existing DST')
    return parser.parse_args()


def convert(src, dst, ema=None, considered=None):
    from mmctx.weights import backbone_config, convert_released, read_state, write_checkpoint

    found = read_state(src, ema)
    state = convert_released(found.state)
    backbone = backbone_config(state, considered)

    from mmctx.apis import build_classifier

    try:
        build_classifier(backbone).load_state_dict(state)
    except RuntimeError as error:
        wrong = ' '.join(str(error).split())[:300]
        raise UserError(f'{src} does not fit {backbone}: {wrong}') from error
    write_checkpoint(
        dst, state, dict(source=Path(src).name, weights=found.source, backbone=backbone)
    )
    return found.source, backbone


def main():
    args = parse_args()
    if Path(args.dst).exists() and not args.force:
        raise UserError(f'{args.dst} exists: name another file or pass --force')
    source, backbone = convert(args.src, args.dst, args.ema, args.considered)
    settings = ', '.join(f'{key}={value!r}' for key, value in backbone.items())
    size = ', '.join(f'{key} {backbone[key]}' for key in ('arch', 'depth') if key in backbone)
    name = backbone['type'].removeprefix('mmctx.')
    print(f'{args.src}: released {name}, {size}, {backbone["num_classes"]} classes')
    print(f'weights taken: {source or "the bare state"}')
    if not args.considered:
        print(
            f'considered={backbone["considered"]} is assumed: weights do not tell how many classes '
            'the stages keep; if it was trained with other numbers, pass them as --considered'
        )
    print(f'wrote {args.dst}; it loads into\n')
    print(f"model = dict(backbone=dict({settings}, out_type='logits'))\nload_from = {args.dst!r}")


if __name__ == '__main__':
    run_tool(main)
