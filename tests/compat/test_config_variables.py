"""Environment variables reach a config as they are, whatever characters they have."""

import pytest
from mmengine.config import Config

VALUES = [
    "/data/Ann's set", 'C:\\new\\table', '/a "quoted" name', "both ' and \"", '\\',
    "'; x = 1; '",
]  # fmt: skip


@pytest.mark.parametrize('quote', ["'", '"'])
@pytest.mark.parametrize('value', VALUES)
def test_a_value_arrives_as_it_is(tmp_path, monkeypatch, value, quote):
    monkeypatch.setenv('PLACE', value)
    config = tmp_path / 'config.py'
    config.write_text(f'root = {quote}{{{{$PLACE:data/set}}}}{quote}\nfile = root + "/list.txt"\n')
    cfg = Config.fromfile(config)
    assert cfg.root == value and cfg.file == f'{value}/list.txt'
    assert set(cfg.keys()) == {'root', 'file'}
    assert cfg.env_variables['PLACE'] == value


def test_a_number_stays_a_number_and_defaults_hold(tmp_path, monkeypatch):
    monkeypatch.setenv('SIZE', '8')
    config = tmp_path / 'config.py'
    config.write_text("size = {{'$SIZE:4'}}\nroot = '{{$NOT_SET_ANYWHERE:data}}'\n")
    assert dict(Config.fromfile(config)) == dict(size=8, root='data')
