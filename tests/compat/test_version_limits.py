"""mmdet, mmpretrain and mmaction2 beside a newer mmcv than they admit."""

from importlib import import_module, reload

import mmcv
import pytest

from mmctx.compat.after_import import _contexts


@pytest.mark.parametrize('package', ['mmdet', 'mmpretrain', 'mmaction'])
@pytest.mark.parametrize('version', ['2.2.0', '2.3.6'])
def test_newer_mmcv_is_let_through(package, version, monkeypatch):
    pytest.importorskip(package)
    monkeypatch.setattr(mmcv, '__version__', version)
    reload(import_module(package))
    assert mmcv.__version__ == version


@pytest.mark.parametrize('version', ['1.7.2', '3.0.0'])
def test_another_major_version_is_refused(version, monkeypatch):
    import mmdet

    monkeypatch.setattr(mmcv, '__version__', version)
    with pytest.raises(AssertionError, match=f'MMCV=={version}'):
        reload(mmdet)
    assert mmcv.__version__ == version


def test_without_the_remedy_they_refuse(monkeypatch):
    import mmdet

    monkeypatch.setattr(mmcv, '__version__', '2.2.0')
    monkeypatch.delitem(_contexts, 'mmdet')
    with pytest.raises(AssertionError, match=r'MMCV==2\.2\.0'):
        reload(mmdet)
