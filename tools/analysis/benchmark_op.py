"""Time the contextual convolution; see --help."""

from mmctx.cli.clone import run_benchmark

if __name__ == '__main__':
    run_benchmark('benchmarks.speed.op', __file__)
