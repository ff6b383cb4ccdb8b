"""What importing mmctx does, and does not, to the import system."""

import importlib.util
import os
import pkgutil
import subprocess
import sys

import pytest

import mmctx  # noqa: F401
from mmctx.compat import fallback_modules, install


def run_python(code, **env):
    """Run code in a new interpreter and return what it prints."""
    result = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'OMP_NUM_THREADS': '1', **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_mmctx_imports_no_framework():
    names = ('torch', 'torchvision', 'mmcv', 'mmdet', 'mmaction', 'mmpretrain')
    code = f'import sys, mmctx; print([name for name in {names} if name in sys.modules])'
    assert run_python(code) == '[]'


@pytest.mark.parametrize(
    'first',
    ['mmctx.models.backbones', 'mmctx.engine', 'mmctx.compat.checkpoint', 'mmengine.runner'],
)
def test_any_module_can_be_imported_first(first):
    code = f"""
import mmctx, {first}
from mmengine.runner import CheckpointLoader
print(CheckpointLoader.load_checkpoint.__func__.__module__)
"""
    assert run_python(code).splitlines()[-1] == 'mmctx.compat.checkpoint'


def test_install_appends_one_finder_at_the_end():
    before = list(sys.meta_path)
    install()
    assert sys.meta_path == before
    assert sys.meta_path.count(fallback_modules.FallbackFinder) == 1
    code = 'import sys, mmctx; print(sys.meta_path[-1].__name__)'
    assert run_python(code) == 'FallbackFinder'


def test_other_missing_modules_stay_missing():
    pytest.importorskip('mmcv')
    assert importlib.util.find_spec('mmcv._other') is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('mmcv._other')


def test_ext_can_be_found_and_loaded():
    pytest.importorskip('mmcv')
    spec = importlib.util.find_spec('mmcv._ext')
    module = importlib.import_module('mmcv._ext')
    assert spec.name == module.__spec__.name == module.__name__ == 'mmcv._ext'
    if hasattr(pkgutil, 'find_loader'):
        from mmcv.utils.ext_loader import check_ops_exist

        assert check_ops_exist()


def test_a_real_ext_wins(tmp_path):
    pytest.importorskip('mmcv')
    (tmp_path / '_ext.py').write_text("nms = 'the real one'\n")
    code = (
        'import mmctx, mmcv, importlib.util;'
        f'mmcv.__path__.insert(0, {str(tmp_path)!r});'
        'import mmcv._ext as ext;'
        'print(ext.nms, importlib.util.find_spec("mmcv._ext").origin)'
    )
    assert run_python(code) == f'the real one {tmp_path / "_ext.py"}'


def test_drn_is_importable_and_refuses_to_be_built():
    pytest.importorskip('mmaction')
    from mmaction.registry import MODELS
    from mmengine.registry import init_default_scope

    if importlib.util.find_spec('mmaction.models.localizers.drn').origin is not None:
        pytest.skip('this mmaction2 has DRN')
    init_default_scope('mmaction')
    import mmaction.models  # noqa: F401

    with pytest.raises(NotImplementedError, match='DRN is missing from mmaction2'):
        MODELS.build({'type': 'DRN', 'vocab_size': 10})
