"""Launching a kernel again and again at little cost on the host.

Triton binds, specialises and looks up a kernel at each call, which for forty arguments takes longer
than many a kernel runs. What a `Launch` fixes needs that once: afterwards only pointers change.
"""

from collections.abc import Mapping

import torch
import triton
from torch import Tensor
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from mmctx.compat.triton_interpreter import fix_interpreter

fix_interpreter()


class Launch:
    """A kernel with its grid, integers and constants; called with its pointers, in order.

    Whoever calls it answers for the pointers being of the same types as in the first call, and, but
    for those that the kernel takes at any alignment, on addresses divisible by 16.

    Args:
        kernel (JITFunction): Takes pointers first, then integers and constants.
        programs (int): Programs of the grid.
        values (Mapping): Integers and constants by name; those that the kernel does not take are
            passed over.
        warps (int): Warps of a program. Defaults to 4.
        registers (int, optional): Most registers for a thread. Defaults to None, the compiler's.
    """

    __slots__ = ('fixed', 'grid', 'kernel', 'options', 'pointers', 'run')

    def __init__(
        self,
        kernel: JITFunction,
        programs: int,
        values: Mapping[str, object],
        warps: int = 4,
        registers: int | None = None,
    ):
        self.kernel = kernel
        self.grid = (programs, 1, 1)
        self.pointers = next(i for i, name in enumerate(kernel.arg_names) if name in values)
        self.fixed = tuple(values[name] for name in kernel.arg_names[self.pointers :])
        self.options = dict(num_warps=warps, num_stages=1)
        if registers is not None and torch.version.hip is None:
            self.options['maxnreg'] = registers
        self.run = None

    def __call__(self, stream: int, *pointers: Tensor | None) -> None:
        """Launch on a raw stream of the current device."""
        run = self.run
        if run is None:
            compiled = self.kernel[self.grid](*pointers, *self.fixed, **self.options)
            # Triton's interpreter compiles nothing.
            if compiled is not None:
                self.run = compiled.run, compiled.function, compiled.packed_metadata
            return
        launch, function, metadata = run
        hooks = triton.knobs.runtime
        launch(
            *self.grid, stream, function, metadata, None,
            hooks.launch_enter_hook, hooks.launch_exit_hook,
            *[None if p is None else p.data_ptr() for p in pointers], *self.fixed,
        )  # fmt: skip


def current_stream(device: torch.device) -> int:
    """Raw stream that work on a device goes to; 0 where there is none."""
    if device.type != 'cuda':
        return 0
    return driver.active.get_current_stream(device.index)
