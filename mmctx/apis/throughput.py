"""Images per second of a configured model."""

import platform
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn as nn

WARM_UP = 1
MIN_BATCHES = 3


def pick_device() -> torch.device:
    """The GPU if PyTorch sees one, else the CPU."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def name_device(device: torch.device) -> str:
    """A device as a reader knows it, with the number of threads where that matters.

    Args:
        device (torch.device): The device.

    Returns:
        str: For example 'NVIDIA H200' or 'AMD EPYC, 2 threads'.
    """
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    threads = torch.get_num_threads()
    plural = '' if threads == 1 else 's'
    return f'{next(names, platform.machine() or "CPU")}, {threads} thread{plural}'


def measure_throughput(
    model: nn.Module, shape: tuple[int, int], batch_size: int, seconds: float
) -> float:
    """Time forward passes in float32, without data loading and post-processing.

    Args:
        model (nn.Module): An mmpretrain classifier or an mmdet detector; it is left on the device
            and in evaluation mode.
        shape (tuple[int, int]): Height and width of the images, in pixels.
        batch_size (int): Images at a time.
        seconds (float): How long to go on; at least three batches are timed.

    Returns:
        float: Images per second of the median batch.
    """
    device = pick_device()
    model.to(device).eval()
    images = torch.rand(batch_size, 3, *shape, device=device)
    extra = {}
    if hasattr(model, 'rpn_head'):
        from mmdet.structures import DetDataSample

        metainfo = dict(img_shape=shape, ori_shape=shape, pad_shape=shape)
        extra['data_samples'] = [DetDataSample(metainfo=metainfo) for _ in range(batch_size)]

    def forward() -> float:
        start = time.perf_counter()
        model(images, **extra)
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    with torch.inference_mode():
        for _ in range(WARM_UP):
            forward()
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) < MIN_BATCHES or time.perf_counter() < end:
            times.append(forward())
    return batch_size / median(times)
