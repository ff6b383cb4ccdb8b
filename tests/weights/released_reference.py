"""The released networks from their description: a plain ResNet that runs, and ConvNeXt's names."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torchvision.ops import deform_conv2d


class Conv(nn.Module):
    """`conv2` of every block: a static 3×3 kernel, with predictors in contextual blocks."""

    def __init__(self, width, stride, contextual):
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        if contextual:
            hidden, context = width // 4, width + width // 2
            self.spatial_offset_layer = nn.Sequential(
                nn.Conv2d(context, hidden, 1),
                nn.BatchNorm2d(hidden),
                nn.ReLU(),
                nn.Conv2d(hidden, 27, 3, stride, 1),
            )
            self.weight_offset_layer = nn.Sequential(
                nn.Linear(context, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
                nn.Linear(hidden, width * 9),
            )

    def forward(self, x, prior):
        if not hasattr(self, 'spatial_offset_layer'):
            return self.conv(x)
        everywhere = prior[:, :, None, None].expand(-1, -1, *x.shape[2:])
        grid = self.spatial_offset_layer(torch.cat([everywhere, x], 1))
        delta = self.weight_offset_layer(torch.cat([prior, x.mean((2, 3))], 1))
        offset, mask = grid[:, :18], grid[:, 18:].sigmoid()
        images = [
            deform_conv2d(
                x[i : i + 1],
                offset[i : i + 1],
                self.conv.weight + delta[i].view(1, -1, 3, 3),
                stride=self.stride,
                padding=1,
                mask=mask[i : i + 1],
            )
            for i in range(len(x))
        ]
        return torch.cat(images)


class Block(nn.Module):
    def __init__(self, inputs, width, stride, contextual):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Conv(width, stride, contextual)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x, prior):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y, prior)).relu()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class Projection(nn.Module):
    def __init__(self, channels, embed_dims):
        super().__init__()
        self.nonlinear = nn.Sequential(
            nn.Linear(channels, channels // 4),
            nn.BatchNorm1d(channels // 4),
            nn.ReLU(),
            nn.Linear(channels // 4, embed_dims),
        )


class Merger(nn.Module):
    def __init__(self, embed_dims, prior):
        super().__init__()
        self.in_nonlinear = nn.Sequential(nn.Linear(embed_dims, 128), nn.LayerNorm(128), nn.ReLU())
        self.out_nonlinear = nn.Sequential(nn.Linear(128, prior), nn.LayerNorm(prior), nn.ReLU())


class Classifier(nn.Module):
    def __init__(self, base, num_classes, considered, embed_dims):
        super().__init__()
        self.considered = considered
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.class_token_embedding = nn.Embedding(num_classes, embed_dims)
        self.visual_proj_heads = nn.ModuleList(
            Projection(4 * base * 2**i, embed_dims) for i in range(4)
        )
        self.class_mergers = nn.ModuleDict(
            {str(i): Merger(embed_dims, base * 2**i // 2) for i in (1, 2, 3)}
        )

    def forward(self, x, stage):
        image = self.visual_proj_heads[stage].nonlinear(x.mean((2, 3)))
        classes = self.class_token_embedding.weight
        cosine = F.cosine_similarity(image[:, None], classes[None], dim=2)
        logits = cosine * self.logit_scale.exp()
        if stage == 3:
            return logits, None
        merger = self.class_mergers[str(stage + 1)]
        ranked = logits.argsort(1, descending=True)[:, : self.considered[stage]]
        return logits, merger.out_nonlinear(merger.in_nonlinear(classes[ranked]).mean(1))


class ReleasedResNet(nn.Module):
    """Contextual ResNet50 as released: modulated, reranking, every second block of stages 2–4."""

    def __init__(self, base=64, num_classes=1000, considered=(500, 200, 50), embed_dims=256):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, depth in enumerate((3, 4, 6, 3)):
            width = base * 2**stage
            blocks = nn.ModuleList()
            for i in range(depth):
                stride = 2 if stage and not i else 1
                blocks.append(Block(channels, width, stride, bool(stage) and i % 2 == 0))
                channels = 4 * width
            setattr(self, f'layer{stage + 1}', blocks)
        self.cls = Classifier(base, num_classes, considered, embed_dims)

    def forward(self, x):
        """Logits of the four stages, (B, N₁) in class order."""
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        stages, prior = [], None
        for stage in range(4):
            for block in getattr(self, f'layer{stage + 1}'):
                x = block(x, prior)
            logits, prior = self.cls(x, stage)
            stages.append(logits)
        return stages


def randomized_resnet(seed=0, **options):
    """A narrow reference whose parameters and running statistics are all random."""
    generator = torch.Generator().manual_seed(seed)
    model = ReleasedResNet(**options)
    for name, value in model.state_dict().items():
        if name.endswith('running_var'):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.ndim > 1 and 'embedding' not in name:
            value.normal_(std=value[0].numel() ** -0.5, generator=generator)
        elif value.is_floating_point() and 'logit_scale' not in name:
            value.normal_(mean=float(name.endswith('weight')), std=0.3, generator=generator)
    return model


def released_convnext_shapes(depths, dims, num_classes=1000, embed_dims=256, every=3):
    """Every name of a released Contextual ConvNeXt's state, with its shape."""
    shapes = {}

    def layer(name, *shape):
        shapes[f'{name}.weight'], shapes[f'{name}.bias'] = shape, shape[:1]

    def nonlinear(name, inputs, hidden, outputs, kernel=None):
        layer(f'{name}.0', hidden, inputs, *([1, 1] if kernel else []))
        layer(f'{name}.1', hidden)
        layer(f'{name}.3', outputs, hidden, *([kernel, kernel] if kernel else []))

    for stage, (depth, dim) in enumerate(zip(depths, dims)):
        before = dims[stage - 1] if stage else 3
        conv = (dim, before, 2, 2) if stage else (dim, before, 4, 4)
        layer(f'downsample_layers.{stage}.{1 if stage else 0}', *conv)
        layer(f'downsample_layers.{stage}.{0 if stage else 1}', before if stage else dim)
        for i in range(depth):
            block = f'stages.{stage}.{i}'
            shapes[f'{block}.gamma'] = (dim,)
            layer(f'{block}.dwconv.conv', dim, 1, 7, 7)
            layer(f'{block}.norm', dim)
            layer(f'{block}.pwconv1', 4 * dim, dim)
            layer(f'{block}.pwconv2', dim, 4 * dim)
            if stage and i % every == 0:
                inputs, hidden = dim + dim // 2, dim // 16
                nonlinear(f'{block}.dwconv.spatial_offset_layer', inputs, hidden, 147, kernel=7)
                nonlinear(f'{block}.dwconv.weight_offset_layer', inputs, hidden, 49 * dim)
        nonlinear(f'cls.visual_proj_heads.{stage}.nonlinear', dim, dim, embed_dims)
        if stage:
            merger = f'cls.class_mergers.{stage}'
            layer(f'{merger}.in_nonlinear.0', 128, embed_dims)
            layer(f'{merger}.in_nonlinear.1', 128)
            layer(f'{merger}.out_nonlinear.0', dim // 2, 128)
            layer(f'{merger}.out_nonlinear.1', dim // 2)
    shapes['cls.class_token_embedding.weight'] = (num_classes, embed_dims)
    shapes['cls.logit_scale'] = ()
    return shapes
