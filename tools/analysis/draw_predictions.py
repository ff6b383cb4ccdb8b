"""Draw the ground truth of a data set's first images beside the predictions of a model of mmdet."""

import argparse

from mmctx.cli.options import CfgOptions
from mmctx.cli.tool import run_tool


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of an instance segmentation')
    parser.add_argument('predictions', help='file that tools/test.py --out wrote')
    parser.add_argument('out', help='folder for the pictures and contact_sheet.png')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    return parser.parse_args()


def main():
    args = parse_args()
    from mmengine import load
    from mmengine.registry import init_default_scope

    from mmctx.apis.instances import write_pictures
    from mmctx.cli.config import load_config
    from mmctx.registry import DATASETS

    cfg = load_config(args.config, args.cfg_options)
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    files = write_pictures(dataset, load(args.predictions), args.out)
    print(f'{len(files) - 1} images in {files[0]}')


if __name__ == '__main__':
    run_tool(main)
