"""Names that code bases give to the parameters of vanilla ConvNeXt and ResNet."""

import re
from collections.abc import Container, Sequence
from typing import NamedTuple

from torch import Tensor


class Layout(NamedTuple):
    """How one code base names the parameters of a vanilla network.

    Attributes:
        title (str): Names of the code base and the network.
        landmark (str): Parameter name that every such network has and no other layout has.
        rules (tuple): Pairs of pattern and replacement for `re.sub`, which applied in order lead to
            mmpretrain's names.
    """

    title: str
    landmark: str
    rules: tuple = ()

    def rename(self, name: str) -> str:
        """Translate a parameter's name into mmpretrain's."""
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        return name

    def reshape(self, name: str, value: Tensor) -> Tensor:
        """Bring a parameter into mmpretrain's default shape, given its name there."""
        if not self.rules:
            return value
        if name.endswith('.gamma'):  # [C, 1, 1] in torchvision
            return value.reshape(-1)
        if re.search(r'\.pointwise_conv[12]\.weight$', name):  # [4C, C, 1, 1] in some of timm's
            return value.reshape(value.shape[:2])
        return value


_BLOCK = r'^(stages\.\d+\.\d+)'
CONVNEXT_LAYOUTS = (
    Layout("mmpretrain's ConvNeXt", 'stages.0.0.depthwise_conv.weight'),
    Layout(
        "facebookresearch's ConvNeXt",
        'stages.0.0.dwconv.weight',
        (
            (rf'{_BLOCK}\.dwconv\.', r'\1.depthwise_conv.'),
            (rf'{_BLOCK}\.pwconv([12])\.', r'\1.pointwise_conv\2.'),
            (r'^norm\.', 'norm3.'),
        ),
    ),
    Layout(
        "timm's ConvNeXt",
        'stages.0.blocks.0.conv_dw.weight',
        (
            (r'^stem\.', 'downsample_layers.0.'),
            (r'^stages\.(\d+)\.downsample\.', r'downsample_layers.\1.'),
            (r'^stages\.(\d+)\.blocks\.', r'stages.\1.'),
            (rf'{_BLOCK}\.conv_dw\.', r'\1.depthwise_conv.'),
            (rf'{_BLOCK}\.mlp\.fc([12])\.', r'\1.pointwise_conv\2.'),
            (r'^head\.norm\.', 'norm3.'),
        ),
    ),
    Layout(
        "torchvision's ConvNeXt",
        'features.1.0.block.0.weight',
        (
            # The stem or a downsampling layer alternates with a stage.
            (r'^features\.([0246])\.', lambda m: f'downsample_layers.{int(m[1]) // 2}.'),
            (r'^features\.([1357])\.', lambda m: f'stages.{int(m[1]) // 2}.'),
            (rf'{_BLOCK}\.block\.0\.', r'\1.depthwise_conv.'),
            (rf'{_BLOCK}\.block\.2\.', r'\1.norm.'),
            (rf'{_BLOCK}\.block\.3\.', r'\1.pointwise_conv1.'),
            (rf'{_BLOCK}\.block\.5\.', r'\1.pointwise_conv2.'),
            (rf'{_BLOCK}\.layer_scale$', r'\1.gamma'),
            (r'^classifier\.0\.', 'norm3.'),
        ),
    ),
)
RESNET_LAYOUTS = (Layout("mmpretrain's, torchvision's or timm's ResNet", 'layer1.0.conv2.weight'),)


def find_layout(
    names: Container[str], layouts: Sequence[Layout], prefixes: Sequence[str]
) -> tuple[Layout | None, str]:
    """Recognise the layout of a state.

    Args:
        names (Container[str]): Parameter names of the state.
        layouts (Sequence[Layout]): Layouts to look for.
        prefixes (Sequence[str]): Possible prefixes of the network's names, the likeliest first.

    Returns:
        tuple[Layout | None, str]: The layout, or None if none matches, and the prefix.
    """
    for prefix in prefixes:
        for layout in layouts:
            if prefix + layout.landmark in names:
                return layout, prefix
    return None, prefixes[0]
