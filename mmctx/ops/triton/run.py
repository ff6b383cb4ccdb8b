"""The kernels on tensors, on the device where these are."""

import torch
from torch import Tensor

from .backward import Needed, backward
from .forward import forward
from .problem import Problem, problem_of
from .settings import current

__all__ = ['problem_of', 'run_backward', 'run_forward']


def run_forward(problem: Problem, *tensors: Tensor | None) -> Tensor:
    """The contextual convolution of x, weight, bias, sampling_offset, weight_offset and mask."""
    device = problem.device
    if device.type != 'cuda' or torch.cuda.current_device() == device.index:
        return forward(problem, current(), *tensors)
    with torch.cuda.device(device):
        return forward(problem, current(), *tensors)


def run_backward(
    problem: Problem, grad: Tensor, *tensors: Tensor | None, needed: Needed
) -> dict[str, Tensor]:
    """Gradients of the arguments that are needed, by name; tensors as of `run_forward`."""
    device = problem.device
    if device.type != 'cuda' or torch.cuda.current_device() == device.index:
        return backward(problem, current(), grad, *tensors, needed)
    with torch.cuda.device(device):
        return backward(problem, current(), grad, *tensors, needed)
