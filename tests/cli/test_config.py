"""From config and command line to the runner's config, for the three frameworks."""

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.model import PretrainedInit
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import init_default_scope

from mmctx.cli import switches as switches_module
from mmctx.cli.config import load_config
from mmctx.cli.starting_weights import init_cfgs
from mmctx.cli.switches import set_amp, set_testing, set_training
from mmctx.errors import UserError

CONFIGS = ['mask_rcnn_ctx_convnext_t_coco', 'mask_rcnn_convnext_t_coco', 'mask_rcnn_swin_t_coco']


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('root', ['/some/coco', '/some/coco/', None])
def test_data_are_looked_for_in_coco_root(load, monkeypatch, name, root):
    if root is None:
        monkeypatch.delenv('COCO_ROOT', raising=False)
    else:
        monkeypatch.setenv('COCO_ROOT', root)
    cfg = load(name)
    expected = 'data/coco/' if root is None else '/some/coco/'
    for split, year in dict(train='train', val='val', test='val').items():
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.data_root == expected
        assert dataset.ann_file == f'annotations/instances_{year}2017.json'
        assert dataset.data_prefix.img == f'{year}2017/'
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.ann_file == f'{expected}annotations/instances_val2017.json'


@pytest.mark.parametrize('name', CONFIGS)
def test_detectors_of_table_3_build(load, name):
    cfg = load(name)
    assert cfg.model.backbone.init_cfg is None
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    assert model.neck.in_channels == [96, 192, 384, 768]
    assert type(model.backbone).__name__ == cfg.model.backbone.type.split('.')[-1]


def test_contextual_and_vanilla_rows_differ_in_the_backbone_and_its_groups_only(load):
    ours, vanilla = (load(name).to_dict() for name in CONFIGS[:2])
    backbones = [cfg['model'].pop('backbone') for cfg in (ours, vanilla)]
    for cfg in (ours, vanilla):
        for key in ('work_dir', 'custom_imports', 'pretrained', 'pretrained_hint'):
            cfg.pop(key, None)
    for cfg in (ours, vanilla):
        groups = cfg['optim_wrapper'].pop('paramwise_cfg')
        cfg['optim_wrapper'].pop('constructor')
        assert groups.get('layer_decay_rate', groups.get('decay_rate')) == 0.95
    assert ours == vanilla
    for key in ('out_indices', 'drop_path_rate', 'layer_scale_init_value', 'gap_before_final_norm'):
        assert backbones[0][key] == backbones[1][key]
    assert backbones[0]['type'] == 'mmctx.ContextualConvNeXt'


@pytest.mark.parametrize('name', CONFIGS)
def test_recipe_of_table_3(load, name):
    cfg = load(name)
    assert cfg.train_cfg.max_epochs == 36
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert (cfg.optim_wrapper.optimizer.type, cfg.optim_wrapper.optimizer.lr) == ('AdamW', 1e-4)
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
    assert cfg.auto_scale_lr.base_batch_size == 16


@pytest.mark.parametrize('name', CONFIGS)
def test_pretrained_is_an_option_of_the_merged_config(load, name):
    assert load(name, pretrained='mine.pth').model.backbone.init_cfg.checkpoint == 'mine.pth'
    assert load(name, pretrained=None).model.backbone.init_cfg is None


def test_replacing_one_of_the_two_names_of_the_weights(repo, tmp_path):
    path = tmp_path / 'own.py'
    base = repo / 'configs' / 'mask_rcnn_ctx_convnext_t_coco.py'
    path.write_text(f"_base_ = '{base}'\npretrained = 'mine.pth'\n")
    with pytest.raises(UserError, match=r'mine.pth but .*in1k.pth; set both'):
        load_config(str(path))
    option = {'model.backbone.init_cfg.checkpoint': 'other.pth'}
    assert load_config(str(path), option).model.backbone.init_cfg.checkpoint == 'other.pth'


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (None, 'does not exist'),
        ('model = dict(', 'cannot read config'),
        ('model = undefined', 'cannot read config .*NameError'),
        (
            "custom_imports = dict(imports=['no_such_module'])",
            'cannot read config .*no_such_module',
        ),
        ("_base_ = './lost.py'", 'lost.py'),
        ("default_scope = 'mmdet'", 'no `model`'),
        ("model = dict()\ndefault_scope = 'mmseg'\ntrain_dataloader = dict(a=1)", "'mmseg'"),
    ],
)
def test_unusable_config_is_refused(tmp_path, text, words):
    path = tmp_path / 'config.py'
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words):
        load_config(str(path))


def test_unusable_cfg_options_are_refused(load):
    with pytest.raises(UserError, match=r"'trian_dataloader' .* train_dataloader meant"):
        load(trian_dataloader__batch_size=4)
    with pytest.raises(UserError, match='--cfg-options do not fit'):
        load(model__data_preprocessor__mean__7=1)
    assert load(randomness__seed=3).randomness.seed == 3


def test_amp_needs_a_gpu_and_a_plain_optimizer_wrapper(load, monkeypatch):
    said = []
    monkeypatch.setattr(switches_module, 'print_log', lambda text, **_: said.append(text))
    monkeypatch.setattr(switches_module, 'get_device', lambda: 'cpu')
    cfg = load()
    with pytest.raises(UserError, match='--amp needs a GPU'):
        set_training(cfg, amp=True)
    cfg.optim_wrapper.loss_scale = 'dynamic'
    set_training(cfg)
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert 'loss_scale' not in cfg.optim_wrapper
    assert said == ['no GPU: training in float32 instead of mixed precision']

    monkeypatch.setattr(switches_module, 'get_device', lambda: 'cuda')
    set_training(cfg, amp=True)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    cfg.optim_wrapper.type = 'Special'
    with pytest.raises(UserError, match='type=Special'):
        set_training(cfg, amp=True)


def test_resume_and_lr_scaling(load):
    cfg = load()
    set_training(cfg, auto_scale_lr=True, resume='auto')
    assert (cfg.auto_scale_lr.enable, cfg.resume, cfg.load_from) == (True, True, None)
    set_training(cfg, resume='last.pth')
    assert (cfg.resume, cfg.load_from) == (True, 'last.pth')
    cfg.pop('auto_scale_lr')
    with pytest.raises(UserError, match='base_batch_size'):
        set_training(cfg, auto_scale_lr=True)


def scope_config(tmp_path, scope):
    path = tmp_path / 'config.py'
    path.write_text(
        f"default_scope = '{scope}'\nmodel = dict()\n"
        'test_dataloader = dict(batch_size=1, num_workers=2, dataset=dict(pipeline=[]))\n'
        "test_evaluator = dict(type='Metric')\n"
        'default_hooks = dict(visualization=dict())\n'
    )
    return load_config(str(path), work_dir='w')


@pytest.mark.parametrize(
    ('scope', 'draw', 'folder', 'dump'),
    [
        ('mmdet', 'draw', 'test_out_dir', 'DumpDetResults'),
        ('mmpretrain', 'enable', 'out_dir', 'DumpResults'),
        ('mmaction', 'enable', 'out_dir', 'DumpResults'),
    ],
)
def test_testing_speaks_each_frameworks_dialect(tmp_path, scope, draw, folder, dump):
    cfg = scope_config(tmp_path, scope)
    assert ('collate_fn' in cfg.test_dataloader) == (scope == 'mmpretrain')
    set_testing(cfg, 'model.pth', out='out.pkl', show_dir='pictures', wait_time=1)
    hook = cfg.default_hooks.visualization.to_dict()
    assert hook == {draw: True, 'show': False, 'wait_time': 1, folder: 'pictures'}
    assert [metric['type'] for metric in cfg.test_evaluator] == ['Metric', dump]
    assert cfg.load_from == 'model.pth'


def test_testing_refuses_what_the_config_lacks(tmp_path):
    cfg = scope_config(tmp_path, 'mmdet')
    with pytest.raises(UserError, match=r'not out\.json'):
        set_testing(cfg, 'model.pth', out='out.json')
    with pytest.raises(UserError, match='tta_model'):
        set_testing(cfg, 'model.pth', tta=True)
    del cfg.default_hooks['visualization']
    with pytest.raises(UserError, match='visualization'):
        set_testing(cfg, 'model.pth', show=True)


def test_loaders_without_workers_do_not_ask_for_lasting_ones(load):
    cfg = load(train_dataloader__num_workers=0)
    assert cfg.train_dataloader.persistent_workers is False
    assert cfg.val_dataloader.persistent_workers is True


def test_classes_in_place_of_names_are_understood(monkeypatch):
    """As in configs of pure Python."""
    init = dict(type=PretrainedInit, checkpoint='a.pth')
    assert [*init_cfgs(dict(backbone=dict(init_cfg=init)))] == [('backbone', init)]
    cfg = Config(dict(optim_wrapper=dict(type=AmpOptimWrapper, loss_scale='dynamic')))
    monkeypatch.setattr('mmctx.cli.switches.get_device', lambda: 'cpu')
    set_amp(cfg, False)
    assert cfg.optim_wrapper == dict(type='OptimWrapper')
