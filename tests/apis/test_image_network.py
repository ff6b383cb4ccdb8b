"""Size, cost and speed of recognizers, measured on whole clips."""

import pytest
import torch
from mmengine.registry import init_default_scope

from benchmarks.throughput import measure_throughput
from mmctx.apis import build_classifier, measure_complexity
from mmctx.apis.image_network import ImageNetwork, clip_length

SMALL = dict(
    num_classes=20, considered=(10, 6, 3), embed_dims=16, stem_channels=16, base_channels=16
)


def recognizer(frames, backbone='mmctx.ContextualResNetTSM'):
    import mmaction.models  # noqa: F401
    from mmaction.registry import MODELS

    init_default_scope('mmaction')
    backbone = dict(type=backbone, depth=50, num_segments=frames)
    if backbone['type'] == 'ResNetTSM':
        backbone.update(pretrained2d=False)
    else:
        backbone.update(SMALL)
    channels = 2048 if backbone['type'] == 'ResNetTSM' else 512
    head = dict(type='TSMHead', num_classes=7, in_channels=channels, num_segments=frames)
    return MODELS.build(dict(type='Recognizer2D', backbone=backbone, cls_head=head))


def test_a_clip_costs_as_much_as_its_frames():
    three, six = (measure_complexity(recognizer(frames), (64, 96)) for frames in (3, 6))
    assert three.params == six.params
    # What is not in proportion: FC(d→128) and FC(128→P) over the table of class embeddings.
    assert six.flops == pytest.approx(2 * three.flops, rel=1e-3)
    image = measure_complexity(
        build_classifier(dict(type='mmctx.ContextualResNet', **SMALL)), (64, 96)
    )
    assert three.flops == pytest.approx(3 * image.flops, rel=1e-2)


def test_vanilla_clip():
    """ResNet50 at 64×64 without its classifier, each frame, and the classifier of the clip."""
    params, flops = measure_complexity(recognizer(2, 'ResNetTSM'), (64, 64))
    convolutions = 4_087_136_256 * 64 * 64 // (224 * 224)
    assert params == 23_508_032 + 2049 * 7
    assert flops == pytest.approx(2 * (convolutions + 2048 * 7), rel=0.01)


@pytest.mark.parametrize('training', [True, False])
def test_measuring_leaves_the_mode(training):
    model = recognizer(2).train(training)
    measure_complexity(model, (32, 32))
    assert model.training == model.backbone.training == training


def test_frames_as_a_batch():
    model = recognizer(3).eval()
    network = ImageNetwork(model)
    frames = torch.randn(6, 3, 64, 64)
    expected = model(frames.view(2, 3, 3, 64, 64), stage='head')
    assert torch.equal(network(frames), expected)
    assert expected.shape == (2, 7)
    assert measure_throughput(network, (32, 32), batch_size=6, seconds=0) > 0


def test_only_recognizers_have_clips():
    assert clip_length(recognizer(5)) == 5
    assert clip_length(torch.nn.Conv2d(3, 3, 3)) is None


def test_detector_is_told_the_size_of_its_images():
    class Detector(torch.nn.Module):
        rpn_head = None

        def forward(self, images, data_samples):
            return [sample.img_shape for sample in data_samples]

    assert ImageNetwork(Detector())(torch.zeros(2, 3, 64, 96)) == [(64, 96), (64, 96)]
