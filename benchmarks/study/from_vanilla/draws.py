"""Everything that is random about a training, drawn ahead: the same for all rows of a seed."""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Side of a crop. It shows four fifths of an image's width on average, so that things are about as
# large in it as in the whole images of validation.
CROP = 48
# Of the area, and of the width over the height, of the crop of an image.
AREA, RATIO = (0.35, 1.0), (3 / 4, 4 / 3)
# BGR.
MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)


def draw_order(images: int, batch: int, steps: int, rng: np.random.Generator) -> Tensor:
    """Numbers of the images of each batch, (steps, batch), int64: passes in random orders."""
    passes = -(-steps * batch // images)
    order = np.concatenate([rng.permutation(images) for _ in range(passes)])
    return torch.from_numpy(order[: steps * batch].reshape(steps, batch))


def draw_crops(batch: int, steps: int, rng: np.random.Generator) -> Tensor:
    """Maps from a crop's coordinates to its image's, (steps, batch, 2, 3), as of `affine_grid`.

    Crops are as of `RandomResizedCrop`, of which half are mirrored.
    """
    shape = steps, batch
    side = np.sqrt(rng.uniform(*AREA, shape))
    stretch = np.exp(rng.uniform(*np.log(RATIO), shape) / 2)
    width, height = np.minimum(side * stretch, 1), np.minimum(side / stretch, 1)
    left, top = rng.uniform(-1, 1, (2, *shape))
    mirrored = rng.choice((-1, 1), shape)
    zero = np.zeros(shape)
    rows = [width * mirrored, zero, left * (1 - width)], [zero, height, top * (1 - height)]
    return torch.from_numpy(np.stack([np.stack(row, -1) for row in rows], -2)).float()


def crop(pixels: Tensor, maps: Tensor) -> Tensor:
    """Crops (B, 3, CROP, CROP) of images (B, 3, H, W) by maps (B, 2, 3)."""
    grid = F.affine_grid(maps, [*pixels.shape[:2], CROP, CROP], align_corners=False)
    return F.grid_sample(pixels.float(), grid, padding_mode='border', align_corners=False)


def draw_boxes(steps: int, share: float, rng: np.random.Generator) -> Tensor:
    """Boxes that a batch's images take from each other by CutMix, (steps, 4): x0, x1, y0, y1.

    Args:
        steps (int): Number of batches.
        share (float): Share of them that have a box; that of the others is empty.
        rng (np.random.Generator): Where from.

    Returns:
        Tensor: Shares of the width and height, float32. A box's area is evenly spread between none
        and the whole image, before what lies outside is cut off.
    """
    side = np.sqrt(rng.uniform(size=steps)) * (rng.uniform(size=steps) < share)
    middles = rng.uniform(size=(2, steps))
    corners = [np.clip(at + half, 0, 1) for at in middles for half in (-side / 2, side / 2)]
    return torch.from_numpy(np.stack(corners, 1)).float()


def cut_mix(images: Tensor, target: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W), of which each has a box (4,) of the one half a batch away, with labels.

    Args:
        images (Tensor): Images.
        target (Tensor): One-hot labels, (B, N₁).
        box (Tensor): See `draw_boxes`.

    Returns:
        tuple[Tensor, Tensor]: Images, and labels by the share of their pixels.
    """
    inside = []
    for length, (begin, end) in zip(images.shape[:1:-1], box.view(2, 2)):
        at = (torch.arange(length, device=images.device) + 0.5) / length
        inside.append((at >= begin) & (at < end))
    across, down = inside
    pasted = down[:, None] & across  # [H, W]
    share = pasted.float().mean()
    # Not the neighbour, whose prior `priors_of_another_image` takes.
    away = len(images) // 2
    mixed = torch.where(pasted, images.roll(away, 0), images)
    return mixed, torch.lerp(target, target.roll(away, 0), share.to(target.dtype))


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    # Once, as a CUDA graph takes in no copies from the host.
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))
    return mean, std


def normalize(pixels: Tensor) -> Tensor:
    """Images (B, 3, H, W) as the networks take them, channels last in memory."""
    mean, std = _statistics(pixels.device)
    return ((pixels.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def draw_schedule(steps: int, warm_up: float, waiting: float) -> Tensor:
    """Factors on the learning rates, (steps, 2): a linear start, then a cosine towards zero.

    Args:
        steps (int): Steps of the training.
        warm_up (float): Share of them over which the rate rises.
        waiting (float): Share of them for which the rate of the second column stays zero before it
            starts likewise.

    Returns:
        Tensor: float32.
    """
    at = (torch.arange(steps) + 1) / steps
    cosine = (1 + torch.cos(torch.pi * at)) / 2
    columns = [((at - start) / warm_up).clamp(0, 1) * cosine for start in (0, waiting)]
    return torch.stack(columns, 1)
