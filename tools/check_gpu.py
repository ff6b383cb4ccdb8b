"""Check that mmctx works on this machine's GPU; see --help."""

from mmctx.cli.clone import run_benchmark

if __name__ == '__main__':
    run_benchmark('benchmarks.gpu_check.main', __file__)
