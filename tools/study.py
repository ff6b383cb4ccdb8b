"""Train the study's networks, with and without context; see --help."""

from mmctx.cli.clone import run_benchmark

if __name__ == '__main__':
    run_benchmark('benchmarks.study.main', __file__)
