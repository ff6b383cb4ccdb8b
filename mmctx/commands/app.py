"""Serve a local page that shows what the context of a network does with a picture."""

import argparse

from mmctx.text import read_text


def parse_args() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(prog='mmctx app', description=__doc__)
    parser.add_argument('examples', nargs='*', metavar='FILE', help='pictures to choose from')
    parser.add_argument('--checkpoint', required=True, help='checkpoint file or address')
    parser.add_argument(
        '--config', help='config file of the network (the config that the checkpoint holds)'
    )
    parser.add_argument(
        '--classes', metavar='FILE', help='text file with the name of a class a line'
    )
    parser.add_argument('--device', help='such as cpu or cuda:1 (an accelerator if there is one)')
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to bind to (127.0.0.1); with 0.0.0.0 others on the network see the page too',
    )
    parser.add_argument('--port', type=int, default=7860, help='port (7860; 0 for a free one)')
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    args = parse_args()
    # After the arguments, as these bring torch along.
    from mmctx.apis.predicting import Predictor
    from mmctx.apis.seeing import ContextViewer
    from mmctx.apis.seeing.page import build_page, launch

    classes = read_text(args.classes).splitlines() if args.classes else None
    viewer = ContextViewer(Predictor(args.checkpoint, args.config, classes, args.device))
    launch(build_page(viewer, args.examples), args.host, args.port)
