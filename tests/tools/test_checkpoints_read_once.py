"""The tools open each checkpoint file once: counted by the interpreter itself."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'engine'))

from toy_training import CONFIG, TOY

COUNTING = """
import sys

log = open('opened.txt', 'w')


def note(event, arguments):
    if event == 'open' and str(arguments[0]).endswith('.pth') and arguments[1] in ('r', 'rb'):
        print(arguments[0], file=log, flush=True)


sys.addaudithook(note)
"""
TESTING = """
test_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(type='EnginePoints', length=8),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_cfg = dict()
test_evaluator = dict(type='EngineRisingMetric')
"""


@pytest.fixture
def opened(repo, tmp_path, run_tool):
    """Run a tool on the toy; how often it opened each checkpoint to read it."""
    (tmp_path / 'counting.py').write_text(COUNTING)
    config = CONFIG.format(workers=0, epochs=1).replace("['toy_run']", "['counting', 'toy_run']")
    (tmp_path / 'toy.py').write_text(config + TESTING)

    def run(tool, *arguments):
        path = f'{repo}:{TOY}:{tmp_path}'
        result = run_tool(tool, 'toy.py', *arguments, cwd=tmp_path, PYTHONPATH=path)
        assert result.returncode == 0, result.stderr
        names = (tmp_path / 'opened.txt').read_text().split('\n')[:-1]
        return Counter(Path(name).name for name in names)

    return run


def test_each_checkpoint_is_opened_once(opened, tmp_path):
    """To resume by name or from the latest, to test, and to start from pretrained weights."""
    assert opened('train.py', '--work-dir', 'run') == {}
    (tmp_path / 'run' / 'iter_11.pth').write_bytes(b'cut short')
    (tmp_path / 'run' / 'last_checkpoint').write_text('run/iter_11.pth')
    longer = ('--cfg-options', 'train_cfg.max_epochs=2')
    resumed = opened('train.py', '--work-dir', 'run', '--resume', *longer)
    assert resumed == {'iter_11.pth': 1, 'iter_10.pth': 1}
    named = ('--work-dir', 'named', '--resume', 'run/iter_20.pth')
    assert opened('train.py', *named) == {'iter_20.pth': 1}
    assert opened('test.py', 'run/iter_20.pth') == {'iter_20.pth': 1}

    weights = torch.load(tmp_path / 'run' / 'iter_20.pth', weights_only=False)['state_dict']
    torch.save(weights, tmp_path / 'weights.pth')
    init = ('model.init_cfg.type=Pretrained', 'model.init_cfg.checkpoint=weights.pth')
    pretrained = opened('train.py', '--work-dir', 'pretrained', '--cfg-options', *init)
    assert pretrained == {'weights.pth': 1}
