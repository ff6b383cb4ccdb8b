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
    """A forward pass of random images, without data loading and post-processing.

    Args:
        model (nn.Module): What `ImageNetwork` takes, on the device.
        shape (tuple[int, int]): Height and width of the images, in pixels.
        batch_size (int): Images at a time.
        device (torch.device): Where the images are made.
        memory_format (torch.memory_format): Memory format of the images. Defaults to contiguous.

    Returns:
        Callable: Takes nothing.
    """
    images = torch.rand(batch_size, 3, *shape, device=device).to(memory_format=memory_format)
    network = ImageNetwork(model)
    return lambda: network(images)


def measure_throughput(
    model: nn.Module, shape: tuple[int, int], batch_size: int, seconds: float
) -> float:
    """Time forward passes in float32, without data loading and post-processing.

    Args:
        model (nn.Module): What `ImageNetwork` takes; it is left on the device and in evaluation
            mode.
        shape (tuple[int, int]): Height and width of the images, in pixels.
        batch_size (int): Images at a time.
        seconds (float): Seconds to measure for; at least three batches are timed.

    Returns:
        float: Images per second of the median batch.
    """
    device = pick_device()
    forward = bare_forward(model.to(device).eval(), shape, batch_size, device)
    with torch.inference_mode():
        times = time_in_turn({'forward': Call(lambda _: forward())}, device, seconds)
    return batch_size / times['forward'].median
