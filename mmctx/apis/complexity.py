"""Parameters and multiply-adds of a configured model."""

from typing import NamedTuple

import torch
import torch.nn as nn
from mmengine.analysis import FlopAnalyzer, parameter_count

from mmctx.models.eval_mode import eval_mode
from mmctx.ops.counting import multiply_adds, sampled_dense_multiply_adds

from .image_network import ImageNetwork


class Complexity(NamedTuple):
    """Size and cost of a model.

    Attributes:
        params (int): Number of parameters of the whole model.
        flops (int): Multiply-adds of a forward pass of one image or, for a recognizer, one clip.
    """

    params: int
    flops: int


def _count_sampled_depthwise_conv(inputs, outputs) -> int:
    """Count K multiply-adds for an output value, as for the convolution that is replaced.

    The four multiply-adds of interpolation are left out, as is usual for deformable convolutions.
    """
    taps = inputs[1].type().sizes()[2]
    batch, pixels, channels = outputs[0].type().sizes()
    return taps * batch * pixels * channels


def _count_sampled_dense_conv(inputs, outputs) -> int:
    indices_shape, weight_shape = (inputs[i].type().sizes() for i in (1, 3))
    has_weight_offset = inputs[4].type().kind() == 'TensorType'
    return sampled_dense_multiply_adds(indices_shape, weight_shape, has_weight_offset)


def _count_contextual_conv2d(inputs, outputs) -> int:
    x_shape, weight_shape = (value.type().sizes() for value in inputs[:2])
    has_weight_offset = inputs[4].type().kind() == 'TensorType'
    return multiply_adds(x_shape, weight_shape, has_weight_offset, outputs[0].type().sizes())


def measure_complexity(model: nn.Module, shape: tuple[int, int]) -> Complexity:
    """Count the parameters and the multiply-adds of a model on one image or clip.

    Args:
        model (nn.Module): An mmpretrain classifier, an mmdet detector or a 2D recognizer of
            mmaction2. The region heads of a two-stage detector get the proposals of a random image,
            up to the limit of the test configuration. A recognizer gets a clip of as many frames as
            its backbone is built for.
        shape (tuple[int, int]): Height and width of the image or the frames, in pixels.

    Returns:
        Complexity: Parameters and multiply-adds.
    """
    network = ImageNetwork(model)
    images = torch.rand(network.frames or 1, 3, *shape, generator=torch.Generator().manual_seed(0))
    with eval_mode(model):
        analyzer = FlopAnalyzer(network, images)
        analyzer.set_op_handle('mmctx::sampled_depthwise_conv', _count_sampled_depthwise_conv)
        analyzer.set_op_handle('mmctx::sampled_dense_conv', _count_sampled_dense_conv)
        analyzer.set_op_handle('mmctx::contextual_conv2d', _count_contextual_conv2d)
        analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return Complexity(parameter_count(model)[''], int(analyzer.total()))
