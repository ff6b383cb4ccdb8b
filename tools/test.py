"""Test a model of mmdet, mmpretrain or mmaction2: metrics, pictures, predictions.

`mmctx test` is the same.
"""

from mmctx.cli.tool import run_tool
from mmctx.commands.test import main

if __name__ == '__main__':
    run_tool(main)
