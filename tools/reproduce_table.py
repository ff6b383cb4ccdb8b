"""Print a table of the paper beside this project's figures; see --help."""

from mmctx.cli.clone import run_benchmark

if __name__ == '__main__':
    run_benchmark('benchmarks.tables.reproduce', __file__)
