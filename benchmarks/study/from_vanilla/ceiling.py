"""What kept classes could tell the last stage of a trained vanilla network, with no training."""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import pick_device

from .draws import normalize
from .images import Images, read_packed
from .networks import build_network, considered, load_weights
from .rows import BASES, RESNET
from .trainer import mixed_precision

BATCH = 500
EPOCHS = 40


class Known(NamedTuple):
    """What the stages of a network know of some images.

    Attributes:
        features (list[Tensor]): Means over the maps of stages 1, 2, 3, (N, C_i) each.
        logits (Tensor): Of the network, (N, N₁).
        labels (Tensor): Numbers of the true classes, (N,).
    """

    features: list[Tensor]
    logits: Tensor
    labels: Tensor


def measure_ceilings(data: Path, weights: Path, width: int, every: int) -> dict[str, float]:
    """`ceilings` of a trained vanilla ResNet50, and `network`, its own top-1.

    Args:
        data (Path): File that `images.write_packed` wrote.
        weights (Path): Weights that `Session` kept.
        width (int): Base channels.
        every (int): The classifiers of stages 1, 2, 3 are fitted to every n-th training image.

    Returns:
        dict[str, float]: In percent.
    """
    images = read_packed(data, pick_device())
    classes = images['val'].labels.shape[1]
    network = build_network(BASES[RESNET], classes, width, 1)
    network.load_state_dict(load_weights(weights))
    network.to(images['val'].pixels.device, memory_format=torch.channels_last)
    train = look(network, Images(*(t[::every] for t in images['train'])))
    val = look(network, images['val'])
    probes = [
        fit_probe(features, train.labels, classes) for features in (*train.features, train.logits)
    ]
    # The network has seen crops. A classifier of whole images gains some points from that alone,
    # which is nothing that earlier stages know: the last stage has it too.
    with torch.no_grad():
        refined = val._replace(logits=val.logits + probes.pop()(val.logits))
    network_alone = _percent(val.logits.argmax(1) == val.labels)
    return dict(network=network_alone, **ceilings(refined, probes))


@torch.no_grad()
def look(network: nn.Module, images: Images) -> Known:
    """Run a vanilla ResNet of this study in evaluation mode."""
    network.eval()
    network.backbone.out_indices = (0, 1, 2, 3)
    pooled: list[list[Tensor]] = []
    with mixed_precision(images.pixels.device):
        for pixels in images.pixels.split(BATCH):
            maps = network.backbone(normalize(pixels))
            pooled.append([m.float().mean((2, 3)) for m in maps])
    features = [torch.cat(stage) for stage in zip(*pooled)]
    logits = network.head.fc(features.pop())
    return Known(features, logits, images.labels.argmax(1))


def fit_probe(features: Tensor, labels: Tensor, classes: int) -> nn.Module:
    """A linear classifier of features (N, C), trained as the heads are, in some passes."""
    torch.manual_seed(0)
    probe = nn.Sequential(
        nn.BatchNorm1d(features.shape[1], affine=False), nn.Linear(features.shape[1], classes)
    ).to(features.device)
    optimizer = torch.optim.AdamW(probe.parameters(), 3e-3, weight_decay=0.05)
    batches = -(-len(labels) // 256)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * batches)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(labels), device=labels.device).tensor_split(batches):
            loss = F.cross_entropy(probe(features[chosen]), labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return probe.eval()


@torch.no_grad()
def ceilings(val: Known, probes: list[nn.Module]) -> dict[str, float]:
    """What the last stage would gain if it used what earlier stages know outright.

    Args:
        val (Known): Of the validation images.
        probes (list[nn.Module]): Classifiers of stages 1, 2, 3, fitted to the same images as that
            of the last stage.

    Returns:
        dict[str, float]: In percent. `alone`: top-1 of the last stage. For stage i:
        `recall_stage<i>`, and `recall_right_stage<i>` and `recall_wrong_stage<i>` of the images
        that the last stage is right or wrong about. Gains of top-1, each with its standard error
        over images in `<name>_error`: `kept_stage<i>`, the answer is chosen among the classes that
        the stage keeps; `true_stage<i>`, likewise, but the true class is always among them, in the
        place of the last one where it would be lost; `scores_stage<i>`, the scores of the stage are
        added, by the factor that is best on the other half of the images.
    """
    label = val.labels[:, None]
    right = val.logits.argmax(1) == val.labels
    found = dict(alone=_percent(right))
    for i, (probe, features, kept) in enumerate(
        zip(probes, val.features, considered(val.logits.shape[1])), 1
    ):
        scores = probe(features)
        top = scores.topk(kept, 1).indices
        among = (top == label).any(1, keepdim=True)
        true = torch.cat([top[:, :-1], torch.where(among, top[:, -1:], label)], 1)
        found[f'recall_stage{i}'] = _percent(among)
        found[f'recall_right_stage{i}'] = _percent(among[right])
        found[f'recall_wrong_stage{i}'] = _percent(among[~right])
        answers = dict(
            kept=_among(val.logits, top) == val.labels,
            true=_among(val.logits, true) == val.labels,
            scores=_with_scores(val.logits, scores, val.labels),
        )
        for name, own in answers.items():
            gain = own.double() - right.double()
            found[f'{name}_stage{i}'] = _percent(gain)
            found[f'{name}_stage{i}_error'] = 100 * gain.std().item() / len(gain) ** 0.5
    return found


def _among(logits: Tensor, allowed: Tensor) -> Tensor:
    """Likeliest of the allowed classes, (N,)."""
    return allowed.gather(1, logits.gather(1, allowed).argmax(1, keepdim=True))[:, 0]


def _with_scores(logits: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Whether an image is answered right by logits and scores together, (N,)."""
    factors = torch.linspace(0, 2, 81)
    right = torch.stack([(logits + factor * scores).argmax(1) == labels for factor in factors])
    # Images come class by class, so that each half has all classes.
    first, second = (int(right[:, half::2].float().mean(1).argmax()) for half in (0, 1))
    answered = right[second].clone()
    answered[1::2] = right[first][1::2]
    return answered


def _percent(values: Tensor) -> float:
    return 100 * values.double().mean().item()
