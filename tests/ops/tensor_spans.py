"""Where tensors lie in memory."""

import numpy as np
import torch


class TensorSpans:
    """Spans of memory that tensors take; those that overlap are one.

    Args:
        tensors (list[Tensor]): Tensors, of which empty ones take nothing.

    Attributes:
        starts, ends (ndarray): First address of each span, and the one behind it.
        items (ndarray): Bytes of the smallest element in each.
    """

    def __init__(self, tensors):
        merged = []
        for start, end, item in sorted(map(_span, filter(torch.Tensor.numel, tensors))):
            if merged and start < merged[-1][1]:
                last = merged[-1]
                merged[-1] = (last[0], max(last[1], end), min(last[2], item))
            else:
                merged.append((start, end, item))
        self.starts, self.ends, self.items = np.array(merged, np.int64).reshape(-1, 3).T

    def find(self, addresses, size=1):
        """Number of the span of each access of `size` bytes, and which are in none."""
        place = np.searchsorted(self.starts, addresses, side='right') - 1
        return place, (place < 0) | (addresses + size > self.ends[place])


def _span(tensor):
    """First address, end and element size of a tensor's memory."""
    item = tensor.element_size()
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return tensor.data_ptr(), tensor.data_ptr() + (reach + 1) * item, item
