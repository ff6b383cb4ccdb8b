"""What compat changes of other packages while an exporter records, and only then."""

import pytest
import torch
import torch.nn as nn
from torch.export import Dim

import mmctx  # noqa: F401
from mmctx.compat.exporting import is_exporting, pooling_any_size
from mmctx.compat.temporal_shift import shift_whole_batch


class Asks(nn.Module):
    """A network that gives 1 where it is exported, else 0."""

    def forward(self, x):
        return x * 0 + int(is_exporting())


@pytest.mark.parametrize('strict', [True, False])
def test_tells_an_export_from_a_compilation(strict, tmp_path):
    x = torch.ones(1)
    compiled = torch.compile(Asks(), backend='aot_eager', fullgraph=True)
    assert Asks()(x) == 0 and compiled(x) == 0
    assert torch.export.export(Asks(), (x,), strict=strict).module()(x) == 1
    assert torch.jit.trace(Asks(), x)(x) == 0
    assert compiled(x) == 0


@pytest.mark.parametrize('dynamo', [True, False])
def test_knows_both_onnx_exporters(dynamo, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    path = tmp_path / 'network.onnx'
    torch.onnx.export(Asks(), (torch.ones(1),), path, dynamo=dynamo, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    feed = {given.name: torch.ones(1).numpy() for given in session.get_inputs()}
    assert session.run(None, feed)[0] == 1


@pytest.fixture
def temporal_shift():
    pytest.importorskip('mmaction')
    from mmaction.models.backbones.resnet_tsm import TemporalShift

    return TemporalShift


@pytest.mark.parametrize(('channels', 'shift_div'), [(16, 8), (17, 4), (3, 8), (8, 2)])
@pytest.mark.parametrize('num_segments', [1, 2, 4])
def test_whole_batch_shifts_as_mmaction_does(temporal_shift, channels, shift_div, num_segments):
    frames = torch.randn(3 * num_segments, channels, 2, 5)
    expected = temporal_shift.shift(frames, num_segments, shift_div=shift_div)
    assert torch.equal(shift_whole_batch(frames, num_segments, shift_div), expected)


def test_mmactions_own_shift_runs_unless_exporting(temporal_shift, monkeypatch):
    monkeypatch.setattr('mmctx.compat.temporal_shift.shift_whole_batch', None)
    temporal_shift.shift(torch.randn(4, 8, 2, 2), 2, 4)


def test_exported_shifts_keep_sizes_as_they_are(temporal_shift):
    """mmaction2's own would make the number of frames a formula twice as long at each shift."""
    network = nn.Sequential(*(temporal_shift(nn.Conv2d(8, 8, 1), 4) for _ in range(3)))
    sizes = {0: 4 * Dim('clips'), 2: Dim('height'), 3: Dim('width')}
    frames = torch.randn(8, 8, 6, 6)
    program = torch.export.export(network, (frames,), dynamic_shapes=(sizes,), strict=False)
    values = {node.name: node.meta.get('val') for node in program.graph.nodes}
    (taken,), (given,) = program.graph_signature.user_inputs, program.graph_signature.user_outputs
    assert str(values[given].shape) == str(values[taken].shape)
    other = torch.randn(12, 8, 5, 7)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(other), network(other))


@pytest.mark.parametrize('options', [dict(stride=2), dict(stride=3, padding=1), dict(stride=1)])
def test_exported_pooling_takes_any_size(options):
    network = nn.MaxPool2d(3, **options)
    sizes = {2: Dim('height', min=8), 3: Dim('width', min=8)}
    with pooling_any_size():
        program = torch.export.export(
            network, (torch.randn(1, 2, 16, 17),), dynamic_shapes=(sizes,), strict=False
        )
    for size in ((16, 17), (17, 16), (15, 31), (8, 9)):
        images = torch.randn(1, 2, *size)
        assert torch.equal(program.module()(images), network(images))
