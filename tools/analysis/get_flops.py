"""Count parameters, and multiply-adds for one image, or for one clip of a video recognizer."""

import argparse

from mmctx.cli.options import CfgOptions
from mmctx.cli.tool import run_tool
from mmctx.errors import UserError

SMALLEST = 32
SHAPES = {'mmdet': (800, 1280), 'mmpretrain': (224, 224), 'mmaction': (224, 224)}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', nargs='+', help='config files')
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='size of the image in pixels (800 1280 for detectors, 224 224 for classifiers and '
        'the frames of recognizers)',
    )
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    return parser.parse_args()


def main():
    args = parse_args()
    from mmctx.apis import measure_complexity
    from mmctx.apis.image_network import clip_length
    from mmctx.cli.config import load_config
    from mmctx.cli.running import build_model

    print(f'{"config":40s} {"image":>10s} {"params":>10s} {"FLOPs":>10s}')
    for path in args.config:
        cfg = load_config(path, {'pretrained': None, **(args.cfg_options or {})})
        if cfg.default_scope not in SHAPES:
            raise UserError(f'{path} is of {cfg.default_scope}; this tool serves {list(SHAPES)}')
        height, width = args.shape or SHAPES[cfg.default_scope]
        if min(height, width) < SMALLEST:
            raise UserError(f'--shape {height} {width} is smaller than {SMALLEST}, the stride')
        model = build_model(cfg)
        frames = clip_length(model)
        if cfg.default_scope == 'mmaction' and not frames:
            raise UserError(f'{path}: of mmaction2 this tool serves models of type Recognizer2D')
        params, flops = measure_complexity(model, (height, width))
        size = f'{frames}x{width}x{height}' if frames else f'{width}x{height}'
        name = path.rsplit('/', 1)[-1].removesuffix('.py')
        print(f'{name:40s} {size:>10s} {params / 1e6:9.3f}M {flops / 1e9:9.2f}G')


if __name__ == '__main__':
    run_tool(main)
