"""Images per second of a configured model."""

from collections.abc import Callable

import torch
import torch.nn as nn

from mmctx.apis.image_network import ImageNetwork

from .timing import Call, pick_device, time_in_turn


def bare_forward(
    model: nn.Module,
    shape: tuple[int, int],
    batch_size: int,
    device: torch.device,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Callable[[], object]:
    """Make a forward pass of random images, without data loading and post-processing.

    Args:
        model (nn.Module): Model for `ImageNetwork`, on the device.
        shape (tuple[int, int]): Height and width of the images, in pixels.
        batch_size (int): Number of images in a batch.
        device (torch.device): Device of the images.
        memory_format (torch.memory_format): Memory format of the images. Defaults to contiguous.

    Returns:
        Callable: Function without arguments that runs the forward pass.
    """
    images = torch.rand(batch_size, 3, *shape, device=device).to(memory_format=memory_format)
    network = ImageNetwork(model)
    return lambda: network(images)


def measure_throughput(
    model: nn.Module, shape: tuple[int, int], batch_size: int, seconds: float
) -> float:
    """Time forward passes in float32, without data loading and post-processing.

    Args:
        model (nn.Module): Model for `ImageNetwork`, which stays on the device and in evaluation
            mode.
        shape (tuple[int, int]): Height and width of the images, in pixels.
        batch_size (int): Number of images in a batch.
        seconds (float): Duration of the measurement, in seconds; at least three batches are timed.

    Returns:
        float: Images per second of the median batch.
    """
    device = pick_device()
    forward = bare_forward(model.to(device).eval(), shape, batch_size, device)
    with torch.inference_mode():
        times = time_in_turn({'forward': Call(lambda _: forward())}, device, seconds)
    return batch_size / times['forward'].median
