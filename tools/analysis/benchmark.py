"""Time networks beside their vanilla counterparts; see --help."""

from mmctx.cli.clone import run_benchmark

if __name__ == '__main__':
    run_benchmark('benchmarks.speed.models', __file__)
