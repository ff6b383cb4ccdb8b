"""Train a model of mmdet, mmpretrain or mmaction2 from a config file.

`mmctx train` is the same.
"""

from mmctx.cli.tool import run_tool
from mmctx.commands.train import main

if __name__ == '__main__':
    run_tool(main)
