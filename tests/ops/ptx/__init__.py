"""Runs on a CPU what Triton compiles for a GPU.

The interpreter shows that a kernel is right as it is written; here its PTX runs, the last form of a
kernel before machine code, after all that the compiler does: layouts of blocks over threads, shared
memory, tensor cores, vectorised loads from addresses that it takes for aligned, arithmetic in the
types of the hardware. All threads of some programs run in step, each register as one array.

It knows the instructions that Triton 3.6 emits for these kernels on GPUs of compute capability 8.0,
9.0 and 12.0; another one ends in `Unknown`. Threads never get ahead of each other and asynchronous
copies are done at once, so races and missing barriers are not found (`memory_checks` finds them).
Functions that hardware approximates are as precise as NumPy's, and so are sums of tensor cores.
"""

from .machine import run_programs
from .memory import WrongAddress
from .reading import PTX, Unknown

__all__ = ['PTX', 'Unknown', 'WrongAddress', 'run_programs']
