"""mmcv's public NMS and RoIAlign on top of what mmctx serves as `mmcv._ext`."""

import numpy as np
import pytest
import torch
import torchvision

import mmctx  # noqa: F401

mmcv_ops = pytest.importorskip('mmcv.ops')
served = pytest.importorskip('mmcv._ext')
if not served.__file__.endswith('mmcv_ops.py'):
    pytest.skip('this mmcv has its own compiled ops', allow_module_level=True)

DEVICES = [
    'cpu',
    pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')),
]
HALVES = [(torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)]


def random_boxes(n, device='cpu', size=60.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * size
    extent = torch.rand(n, 2, generator=generator) * size / 2 + 1
    return torch.cat((corner, corner + extent), dim=1).to(device)


def random_rois(n, batch, device='cpu', seed=0):
    index = torch.arange(n, device=device).remainder(batch)[:, None].float()
    return torch.cat((index, random_boxes(n, device, seed=seed)), dim=1)


@pytest.mark.parametrize('device', DEVICES)
def test_nms_matches_torchvision(device):
    boxes = random_boxes(300, device)
    scores = torch.rand(300, generator=torch.Generator().manual_seed(1)).to(device)
    dets, kept = mmcv_ops.nms(boxes, scores, 0.4)
    expected = torchvision.ops.nms(boxes, scores, 0.4)
    assert 0 < len(expected) < 300
    assert torch.equal(kept, expected)
    assert torch.equal(dets, torch.cat((boxes, scores[:, None]), dim=1)[expected])


@pytest.mark.parametrize('device', DEVICES)
def test_nms_offset_changes_the_overlap(device):
    # Widths 2 and 2, shared 1: IoU 2 / 6 = 1/3. With offset 1: areas 9, shared 2 * 3, IoU 6 / 12.
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2]], device=device)
    scores = torch.tensor([0.9, 0.8], device=device)
    assert mmcv_ops.nms(boxes, scores, 0.4, offset=0)[1].tolist() == [0, 1]
    assert mmcv_ops.nms(boxes, scores, 0.4, offset=1)[1].tolist() == [0]
    assert mmcv_ops.nms(boxes, scores, 0.51, offset=1)[1].tolist() == [0, 1]


def test_nms_score_threshold_and_max_num():
    boxes = torch.tensor([[0.0, 0, 1, 1], [10, 0, 11, 1], [20, 0, 21, 1], [30, 0, 31, 1]])
    scores = torch.tensor([0.1, 0.7, 0.3, 0.9])
    assert mmcv_ops.nms(boxes, scores, 0.5, score_threshold=0.2)[1].tolist() == [3, 1, 2]
    assert mmcv_ops.nms(boxes, scores, 0.5, max_num=2)[1].tolist() == [3, 1]
    dets, kept = mmcv_ops.nms(boxes, scores, 0.5, score_threshold=0.95)
    assert dets.shape == (0, 5)
    assert kept.shape == (0,)


def test_nms_of_no_boxes():
    dets, kept = mmcv_ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


def test_nms_of_numpy_and_of_strided_boxes():
    boxes, scores = random_boxes(50), torch.linspace(1, 0.1, 50)
    expected = torchvision.ops.nms(boxes, scores, 0.3)
    dets, kept = mmcv_ops.nms(boxes.numpy(), scores.numpy(), 0.3)
    assert isinstance(dets, np.ndarray)
    assert kept.tolist() == expected.tolist()
    strided = boxes.t().contiguous().t()
    assert not strided.is_contiguous()
    assert torch.equal(mmcv_ops.nms(strided, scores, 0.3)[1], expected)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_nms_in_half_precision(dtype, device):
    boxes = random_boxes(100, device).to(dtype)
    scores = torch.linspace(1, 0.01, 100, device=device).to(dtype)
    dets, kept = mmcv_ops.nms(boxes, scores, 0.4)
    assert dets.dtype == dtype
    assert torch.equal(kept, torchvision.ops.nms(boxes.float(), scores.float(), 0.4))


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('split_thr', [10000, 10])
def test_batched_nms_matches_torchvision(device, split_thr):
    boxes = random_boxes(200, device)
    scores = torch.rand(200, generator=torch.Generator().manual_seed(2)).to(device)
    labels = torch.arange(200, device=device).remainder(3)
    cfg = {'type': 'nms', 'iou_threshold': 0.4, 'split_thr': split_thr}
    dets, kept = mmcv_ops.batched_nms(boxes, scores, labels, cfg)
    assert torch.equal(kept, torchvision.ops.batched_nms(boxes, scores, labels, 0.4))
    assert torch.equal(dets[:, 4], scores[kept])


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_matches_torchvision(device, aligned, sampling_ratio):
    torch.manual_seed(0)
    features = torch.randn(2, 3, 17, 23, device=device, requires_grad=True)
    rois = random_rois(9, 2, device)
    layer = mmcv_ops.RoIAlign((3, 5), 0.25, sampling_ratio, aligned=aligned)
    pooled = layer(features, rois)
    expected = torchvision.ops.roi_align(features, rois, (3, 5), 0.25, sampling_ratio, aligned)
    weight = torch.randn_like(pooled)
    (gradient,) = torch.autograd.grad((pooled * weight).sum(), features)
    (expected_gradient,) = torch.autograd.grad((expected * weight).sum(), features)
    assert gradient.abs().sum() > 0
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize('device', DEVICES)
def test_roi_align_of_a_ramp_by_hand(device):
    # f(x) = x, and the bins of the RoI from 2 to 6 are centred at 3 and 5 on the x axis.
    ramp = torch.arange(10.0, device=device).expand(1, 1, 10, 10)
    rois = torch.tensor([[0.0, 2, 2, 6, 6]], device=device)
    for sampling_ratio in (0, 1, 2):
        legacy = mmcv_ops.roi_align(ramp, rois, (2, 2), 1.0, sampling_ratio, 'avg', False)
        aligned = mmcv_ops.roi_align(ramp, rois, (2, 2), 1.0, sampling_ratio, 'avg', True)
        torch.testing.assert_close(legacy[0, 0].tolist(), [[3.0, 5.0]] * 2)
        torch.testing.assert_close(aligned[0, 0].tolist(), [[2.5, 4.5]] * 2)


def test_roi_align_gradient_is_the_numerical_one():
    features = torch.randn(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 0.7, 1.1, 5.2, 4.9], [1, 2.3, 0.4, 6.1, 3.3]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: mmcv_ops.roi_align(x, rois, (2, 3), 1.0, 2, 'avg', True), (features,)
    )


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize(('dtype', 'tolerance'), HALVES)
def test_roi_align_in_half_precision(dtype, tolerance, device):
    torch.manual_seed(0)
    features = torch.randn(1, 4, 20, 20, device=device).to(dtype).requires_grad_()
    rois = random_rois(5, 1, device)
    pooled = mmcv_ops.roi_align(features, rois, (7, 7), 0.25, 0, 'avg', True)
    pooled.sum().backward()
    reference = features.detach().float().requires_grad_()
    expected = torchvision.ops.roi_align(reference, rois, (7, 7), 0.25, 0, True)
    expected.sum().backward()
    assert pooled.dtype == features.grad.dtype == dtype
    torch.testing.assert_close(pooled.float(), expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(
        features.grad.float(), reference.grad, atol=tolerance, rtol=tolerance
    )


def test_roi_align_of_strided_tensors():
    features = torch.randn(1, 4, 12, 12).to(memory_format=torch.channels_last).requires_grad_()
    rois = random_rois(4, 1).t().contiguous().t()
    pooled = mmcv_ops.roi_align(features, rois, (2, 2), 0.2, 0, 'avg', True)
    weight = torch.randn(4, 2, 2, 4).permute(0, 3, 1, 2)
    (gradient,) = torch.autograd.grad(pooled, features, weight)
    plain = features.detach().contiguous().requires_grad_()
    expected = torchvision.ops.roi_align(plain, rois.contiguous(), (2, 2), 0.2, 0, True)
    (expected_gradient,) = torch.autograd.grad(expected, plain, weight.contiguous())
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize('device', DEVICES)
def test_roi_align_of_no_rois(device):
    features = torch.randn(2, 3, 8, 8, device=device, requires_grad=True)
    rois = torch.zeros(0, 5, device=device)
    pooled = mmcv_ops.roi_align(features, rois, (7, 7), 1.0, 0, 'avg', True)
    pooled.sum().backward()
    assert pooled.shape == (0, 3, 7, 7)
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_roi_align_max_is_refused_by_name():
    with pytest.raises(NotImplementedError, match=r"pool_mode='max'.*MMCV_WITH_OPS=1"):
        mmcv_ops.roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2, 1.0, 0, 'max', True)


def test_other_ops_name_themselves_and_the_remedy():
    remedy = r'MMCV_WITH_OPS=1 pip install --no-build-isolation'
    boxes, scores = random_boxes(3), torch.ones(3)
    with pytest.raises(NotImplementedError, match=f'`softnms`.*{remedy}'):
        mmcv_ops.soft_nms(boxes, scores)
    with pytest.raises(NotImplementedError, match=f'`softmax_focal_loss_forward`.*{remedy}'):
        mmcv_ops.softmax_focal_loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), 2.0, 0.25)


def test_private_names_are_not_served():
    assert not hasattr(served, '__path__')
    assert not hasattr(served, '_anything')


def test_missing_torchvision_kernels_are_reported(monkeypatch):
    served._kernel.cache_clear()
    monkeypatch.setattr(torch.ops, 'torchvision', object())
    with pytest.raises(ImportError, match='install the torchvision made for this torch'):
        mmcv_ops.nms(random_boxes(2), torch.ones(2), 0.5)


def test_collect_env_tells_that_mmcv_has_no_compiler():
    assert mmcv_ops.get_compiler_version().startswith('n/a')
    assert mmcv_ops.get_compiling_cuda_version() == 'n/a'
