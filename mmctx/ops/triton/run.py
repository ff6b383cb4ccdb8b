"""Forward and backward pass in Triton kernels, on the device of the tensors."""

from torch import Tensor

from .backward import Needed, backward
from .device_launch import on_device
from .forward import Tables, forward
from .problem import Problem, problem_of
from .settings import current

__all__ = ['problem_of', 'run_backward', 'run_forward']


def run_forward(problem: Problem, *tensors: Tensor | None) -> tuple[Tensor, Tables]:
    """The contextual convolution of x, weight, bias, sampling_offset, weight_offset and mask.

    The tables that it returns as well save `run_backward` from making them again.
    """
    with on_device(problem.device):
        return forward(problem, current(), *tensors)


def run_backward(
    problem: Problem,
    grad: Tensor,
    *tensors: Tensor | None,
    needed: Needed,
    tables: Tables | None = None,
) -> dict[str, Tensor]:
    """Gradients of the needed arguments by name; the tensors are those of `run_forward`."""
    with on_device(problem.device):
        return backward(problem, current(), grad, *tensors, needed, tables)
