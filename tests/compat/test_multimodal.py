"""mmpretrain and mmaction2 beside stand-ins for `transformers`, each in a new interpreter."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

import mmctx  # noqa: F401
from mmctx.compat import install
from mmctx.compat.after_import import WatchingFinder

MODELING = (
    'PreTrainedModel', 'GenerationConfig', 'GenerationMixin', 'PretrainedConfig',
    'apply_chunking_to_forward', 'find_pruneable_heads_and_indices', 'prune_linear_layer',
)  # fmt: skip
NEW = MODELING[:2]
# What mmpretrain imports of the others, so that without the work-around it comes as far as it does
# beside the real package.
OTHERS = {
    '': 'AutoConfig AutoModelForCausalLM AutoTokenizer BartTokenizer BasicTokenizer BertTokenizer '
    'BertTokenizerFast LlamaTokenizer PreTrainedModel WordpieceTokenizer',
    'models': '',
    'models.auto': '',
    'models.auto.auto_factory': '_BaseAutoModelClass',
    'models.bert': '',
    'models.bert.configuration_bert': 'BertConfig',
    'activations': 'ACT2FN',
    'modeling_outputs': 'BaseModelOutputWithPastAndCrossAttentions '
    'BaseModelOutputWithPoolingAndCrossAttentions CausalLMOutputWithCrossAttentions',
}

# mmpretrain asks whether AutoModelForCausalLM derives from it.
AUTO = '_BaseAutoModelClass = Base'


@pytest.fixture
def transformers(tmp_path):
    """Write a stand-in of a version into a folder, and run code beside it."""

    def run(code, version, modeling_utils):
        info = tmp_path / f'transformers-{version}.dist-info'
        info.mkdir()
        metadata = f'Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n'
        (info / 'METADATA').write_text(metadata)
        classes = {key: names.split() for key, names in OTHERS.items()}
        for key, names in {**classes, 'modeling_utils': modeling_utils}.items():
            folder = tmp_path.joinpath('transformers', *key.split('.')) if key else None
            folder = folder or tmp_path / 'transformers'
            folder.mkdir(parents=True, exist_ok=True)
            source = ''.join(f'class {name}(Base): pass\n' for name in names)
            source = source.replace('class _BaseAutoModelClass(Base): pass', AUTO)
            head = f'__version__ = {version!r}\nfrom transformers.base import Base\n'
            (folder / '__init__.py').write_text(head + source)
        base = 'class Base:\n    from_config = from_pretrained = None\n'
        (tmp_path / 'transformers' / 'base.py').write_text(base)
        return subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code],
            env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=240,
        )

    try:
        importlib.metadata.version('pycocotools')
    except importlib.metadata.PackageNotFoundError:
        pytest.skip('mmpretrain imports its multimodal models only where pycocotools is installed')
    return run


def test_the_stand_in_breaks_mmpretrain_as_the_real_package_does(transformers):
    code = 'import sys; sys.modules["mmctx"] = None; import mmpretrain.models'
    result = transformers(code, '5.17.0', NEW)
    assert 'class BertPreTrainedModel(PreTrainedModel):' in result.stderr
    assert 'TypeError: NoneType takes no arguments' in result.stderr


def test_models_import_and_multimodal_ones_say_what_they_need(transformers):
    pytest.importorskip('mmaction')
    code = """
import mmctx, mmpretrain.models, mmpretrain.datasets, mmdet.models, mmaction.models
from mmaction.registry import MODELS as ACTIONS
from mmpretrain.registry import MODELS
assert type(MODELS.build(dict(type='ResNet', depth=18))).__name__ == 'ResNet'
for registry, name in ((MODELS, 'OFA'), (MODELS, 'CLIP'), (ACTIONS, 'VindLUVQA')):
    try:
        registry.build(dict(type=name))
    except ImportError as error:
        print(error)
"""
    result = transformers(code, '5.17.0', NEW)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = result.stdout.splitlines()
    assert [line.split(' does not work here')[0] for line in lines] == [
        'OFA of mmpretrain', 'CLIP of mmpretrain', 'VindLUVQA of mmaction',
    ]  # fmt: skip
    for line in lines:
        assert 'transformers.modeling_utils 5.17.0 lacks' in line
        assert 'apply_chunking_to_forward' in line and "pip install 'transformers<4.52'" in line


SWITCH = """
import sys, types
package = types.ModuleType('mmpretrain.utils')
import importlib.util
where = importlib.util.find_spec('mmpretrain').submodule_search_locations[0]
package.__path__ = [where + '/utils']
sys.modules.update({'mmpretrain': types.ModuleType('mmpretrain'), 'mmpretrain.utils': package})
{}
import mmpretrain.utils.dependency as switch
{}
print(switch.WITH_MULTIMODAL, switch.register_multimodal_placeholder.__module__)
"""


@pytest.mark.parametrize('order', [('import mmctx', ''), ('', 'import mmctx')])
@pytest.mark.parametrize(
    ('version', 'modeling_utils', 'expected'),
    [
        ('4.49.0', MODELING, 'True mmpretrain.utils.dependency'),
        ('4.52.1', MODELING[:2] + MODELING[3:], 'False mmctx.compat.multimodal'),
        ('4.27.0', NEW, 'False mmpretrain.utils.dependency'),
    ],
)
def test_the_switch_is_left_alone_where_it_is_right(
    version, modeling_utils, expected, order, transformers
):
    """`order` has mmctx imported before mmpretrain, or after it."""
    before, after = order
    code = SWITCH.replace('{}', before, 1).replace('{}', after, 1)
    result = transformers(code, version, modeling_utils)
    assert result.stdout.strip() == expected, result.stderr[-2000:]


def test_install_adds_one_finder():
    install()
    assert sys.meta_path.count(WatchingFinder) == 1
    assert WatchingFinder.find_spec('mmpretrain.utils.misc') is None
