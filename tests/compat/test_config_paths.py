"""`mmctx::` bases in configs."""

import pytest
from mmengine.config import Config

import mmctx  # noqa: F401
from mmctx.compat import config_paths, install


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A package folder with configs where an installed wheel has them."""
    package = tmp_path / 'site-packages' / 'mmctx'
    configs = package / '.mim' / 'configs'
    (configs / '_base_').mkdir(parents=True)
    (configs / '_base_' / 'runtime.py').write_text("default_scope = 'mmdet'\nseed = 1\n")
    (configs / 'mask_rcnn_toy.py').write_text(
        "_base_ = './_base_/runtime.py'\nmodel = dict(type='MaskRCNN', depth=50)\n"
    )
    monkeypatch.setattr(config_paths, '_PACKAGE', package)
    return package


def load(tmp_path, text):
    path = tmp_path / 'config.py'
    path.write_text(text)
    return Config.fromfile(path)


def test_flat_base_is_resolved_in_the_default_scope(packaged, tmp_path):
    cfg = load(tmp_path, "_base_ = 'mmctx::mask_rcnn_toy.py'\nmodel = dict(depth=101)\n")
    assert cfg.default_scope == 'mmdet'
    assert cfg.model == {'type': 'MaskRCNN', 'depth': 101}


def test_nested_base_is_resolved(packaged, tmp_path):
    cfg = load(tmp_path, "_base_ = ['mmctx::_base_/runtime.py']\nseed = [{{_base_.seed}}, 2]\n")
    assert cfg.seed == [1, 2]


def test_bases_of_a_checkout_are_found(packaged, tmp_path):
    (packaged / '.mim' / 'configs').rename(packaged.parent / 'configs')
    assert load(tmp_path, "_base_ = 'mmctx::mask_rcnn_toy.py'").seed == 1


def test_missing_base_is_named(packaged, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config 'absent\.py'"):
        load(tmp_path, "_base_ = 'mmctx::absent.py'")


def test_real_configs_lie_where_they_are_looked_for():
    assert config_paths.config_dir().is_dir()
    assert (config_paths.config_dir() / '_base_').is_dir()


def test_install_is_idempotent_and_other_packages_go_mmengines_way(tmp_path):
    before = Config._get_cfg_path
    install()
    assert Config._get_cfg_path is before
    pytest.importorskip('mmdet')
    cfg = load(tmp_path, "_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'")
    assert cfg.model._scope_ == 'mmdet'
    with pytest.raises(ValueError, match='specify the package name'):
        load(tmp_path, "_base_ = 'mmdet::flat.py'")
