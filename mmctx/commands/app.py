"""Serve a local page that shows what the context of a network does with a picture."""

import argparse

from mmctx.cli.options import add_network_options, class_names


def parse_args() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(prog='mmctx app', description=__doc__)
    parser.add_argument('examples', nargs='*', metavar='FILE', help='pictures to choose from')
    add_network_options(parser)
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

    viewer = ContextViewer(Predictor(args.checkpoint, args.config, class_names(args), args.device))
    page = build_page(viewer, args.examples)
    launch(page, args.host, args.port)
    page.block_thread()
