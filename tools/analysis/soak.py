"""Train for a long time and see whether memory stays flat; see --help."""

from mmctx.cli.clone import run_benchmark

if __name__ == '__main__':
    run_benchmark('benchmarks.memory.soak', __file__)
