"""Shapes of the arguments of a contextual convolution."""

from .sampling import output_size


def check_shapes(
    x, weight, bias, sampling_offset, weight_offset, mask, stride, padding, dilation
) -> None:
    """Raise a ValueError if the shapes of a contextual convolution do not fit each other."""
    if len(x) != 4 or len(weight) != 4:
        raise ValueError(f'x and weight need 4 axes, got {tuple(x)}, {tuple(weight)}')
    batch, channels, *size = x
    out_channels, in_channels, *kernel = weight
    depthwise = in_channels == 1 and out_channels == channels
    if in_channels != channels and not depthwise:
        raise ValueError(
            f'weight {tuple(weight)} is neither depthwise nor dense for {channels} channels'
        )
    out_size = output_size(size, kernel, stride, padding, dilation)
    if min(out_size) < 1:
        raise ValueError(f'a {kernel} kernel does not fit an image of {size} padded by {padding}')
    taps = kernel[0] * kernel[1]
    weight_offset_channels = (channels, 1) if depthwise else (1, channels)
    expected = {
        'bias': (bias, (out_channels,)),
        'sampling_offset': (sampling_offset, (batch, 2 * taps, *out_size)),
        'weight_offset': (weight_offset, (batch, *weight_offset_channels, *kernel)),
        'mask': (mask, (batch, taps, *out_size)),
    }
    for name, (shape, fitting) in expected.items():
        if shape is not None and tuple(shape) != fitting:
            raise ValueError(f'{name} should be of shape {fitting}, got {tuple(shape)}')
