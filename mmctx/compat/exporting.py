"""What exporters need: whether one is recording a network, and pooling of maps of any size."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def is_exporting() -> bool:
    """Whether `torch.export` or one of the two ONNX exporters is recording the network."""
    if torch.compiler.is_compiling():
        # `torch.compiler.is_exporting` also says yes to torch.compile, which takes it for a
        # constant.
        return torch.compiler._is_exporting_flag
    # The exporter that traces; asked last, because it imports modules.
    return torch._C._get_tracing_state() is not None and torch.onnx.is_in_onnx_export()


@contextmanager
def pooling_any_size() -> Iterator[None]:
    """Let torch.export record pooling without asking whether its stride divides the map.

    PyTorch rounds the pooled size down as C does, correcting it where the remainder is negative. In
    Python the remainder never is, but that it was asked for holds for all images: after a batch of
    64 pixels a program would refuse one of 96.
    """
    shapes = torch._meta_registrations
    rounding = getattr(shapes, 'div_rtn', None)
    if rounding is None:
        yield
        return
    shapes.div_rtn = lambda x, y: x // y
    try:
        yield
    finally:
        shapes.div_rtn = rounding
