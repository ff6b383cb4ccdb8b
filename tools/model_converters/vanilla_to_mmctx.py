"""Convert a vanilla ConvNeXt or ResNet checkpoint into one to start a contextual network from.

Checkpoints of mmpretrain, facebookresearch, timm and torchvision can be converted. A contextual
backbone also loads them directly, by `init_cfg=dict(type='Pretrained', checkpoint=SRC)`. Conversion
is needed for `load_from`, and for checkpoints that hold more than weights.
"""

import argparse
from pathlib import Path

from mmctx.cli.tool import run_tool
from mmctx.errors import UserError

NEW = ('contextualizing', 'sampling_offset_predictor', 'weight_offset_predictor')


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', help='vanilla checkpoint')
    parser.add_argument('dst', help='file to write')
    parser.add_argument(
        '--ema',
        action=argparse.BooleanOptionalAction,
        help='take the moving average of the weights, or the weights themselves (the moving '
        'average if there is one)',
    )
    parser.add_argument('--force', action='store_true', help='replace an existing DST')
    return parser.parse_args()


def convert(src, dst, ema=None):
    from mmctx.weights import backbone_config, convert_vanilla, read_state, write_checkpoint

    found = read_state(src, ema)
    state, title = convert_vanilla(found.state)
    backbone = backbone_config(state)

    from mmctx.registry import MODELS

    model = MODELS.build(backbone)
    own = {name.removeprefix('backbone.'): value for name, value in state.items()}
    try:
        missing = model.load_state_dict(own, strict=False).missing_keys
    except RuntimeError as error:
        wrong = ' '.join(str(error).split())[:300]
        raise UserError(f'{src} does not fit {backbone}: {wrong}') from error
    missing = [name for name in missing if not any(part in name.split('.') for part in NEW)]
    if missing:
        raise UserError(f'{src} lacks {len(missing)} weights of {backbone}: {missing[:3]}')
    write_checkpoint(
        dst, state, dict(source=Path(src).name, weights=found.source, backbone=backbone)
    )
    return found.source, title, backbone


def main():
    args = parse_args()
    if Path(args.dst).exists() and not args.force:
        raise UserError(f'{args.dst} exists: name another file or pass --force')
    source, title, backbone = convert(args.src, args.dst, args.ema)
    backbone['init_cfg'] = dict(type='Pretrained', checkpoint=args.dst, prefix='backbone.')
    settings = ', '.join(f'{key}={value!r}' for key, value in backbone.items())
    print(f'{args.src}: {title}; its classifier is left out')
    print(f'weights taken: {source or "the bare state"}')
    print(f'wrote {args.dst}; it loads into\n')
    print(f'model = dict(backbone=dict({settings}))')


if __name__ == '__main__':
    run_tool(main)
