"""Repeated launches of a kernel that take little time on the host.

At each call Triton binds its arguments, specialises on them and looks up the kernel, which with
forty arguments takes longer than many kernels run. A `Launch` fixes all arguments but the pointers,
so this is done only once.
"""

from collections.abc import Iterable, Mapping

import torch
import triton
from torch import Tensor
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from mmctx.compat.triton_interpreter import fix_interpreter

fix_interpreter()


class Launch:
    """A kernel with its grid, integers and constants; called with its pointers, in order.

    The caller must pass pointers of the same types as in the first call. Their addresses must be
    divisible by 16, except where the kernel accepts any alignment.

    Args:
        kernel (JITFunction): Kernel whose parameters are pointers, then integers and constants.
        programs (int): Number of programs in the grid.
        values (Mapping): Integers and constants by name; those that the kernel does not have are
            ignored.
        warps (int): Number of warps of a program. Defaults to 4.
        registers (int, optional): Largest number of registers of a thread. Defaults to None, which
            leaves it to the compiler.
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


def types_of(*tensors: Tensor | None) -> tuple[torch.dtype | None, ...]:
    """Types of tensors, for which a launch is compiled; None for None."""
    return tuple([None if tensor is None else tensor.dtype for tensor in tensors])


def mark_as_changed(tensors: Iterable[Tensor]) -> None:
    """Let autograd know of tensors that a kernel has written, in case that it saved them before."""
    if not torch.is_inference_mode_enabled():
        for tensor in tensors:
            torch.autograd.graph.increment_version(tensor)


def current_stream(device: torch.device) -> int:
    """Raw handle of the current stream of a device; 0 if it has none."""
    if device.type != 'cuda':
        return 0
    return driver.active.get_current_stream(device.index)
