"""mmaction2's temporal shift in a form that exporters can follow.

mmaction2 folds the batch into clips and height and width into one, and unfolds them again. Each
such shift doubles the formula that torch.export keeps for the number of frames, so that an export
of a few residual blocks would take hours. Recorded is a shift of the whole batch instead, which
leaves every size as it is.
"""

from .after_import import after_import


def install():
    """Record another form of mmaction2's `TemporalShift`; otherwise its own runs. Idempotent."""
    after_import('mmaction.models.backbones.resnet_tsm', _extend)


def _extend(module) -> None:
    from .exporting import is_exporting

    own = module.TemporalShift.shift

    def shift(x, num_segments, shift_div=3):
        chosen = shift_whole_batch if is_exporting() else own
        return chosen(x, num_segments, shift_div)

    module.TemporalShift.shift = staticmethod(shift)


def shift_whole_batch(x, num_segments: int, shift_div: int):
    """Shift one part of the channels to the frame before, and one to the frame after.

    Args:
        x (Tensor): Frames of all clips, one clip after the other, (N·T, C, H, W).
        num_segments (int): Number of frames T of a clip.
        shift_div (int): Divisor n of the channels: C // n are shifted each way.

    Returns:
        Tensor: Of the shape of x; zero where a clip has no such frame.
    """
    import torch

    shifted = x.shape[1] // shift_div
    later, earlier, same = x.split([shifted, shifted, x.shape[1] - 2 * shifted], dim=1)
    frame = (torch.arange(x.shape[0], device=x.device) % num_segments)[:, None, None, None]
    later = torch.where(frame == num_segments - 1, 0, later.roll(-1, 0))
    earlier = torch.where(frame == 0, 0, earlier.roll(1, 0))
    return torch.cat([later, earlier, same], dim=1)
