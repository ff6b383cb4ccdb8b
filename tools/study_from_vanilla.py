"""Train contextual networks from a vanilla one's weights on a GPU, in minutes; see --help."""

from mmctx.cli.clone import run_benchmark

if __name__ == '__main__':
    run_benchmark('benchmarks.study.from_vanilla.main', __file__)
