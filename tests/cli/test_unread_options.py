"""An option that nothing reads is refused with the key that has an effect; all others pass."""

import pytest

from mmctx.errors import UserError

COCO, CLASSIFIER, VIDEO = (
    'mask_rcnn_ctx_convnext_t_coco',
    'ctx_resnet_tiny_imagenet',
    'tsm_ctx_resnet50_k400',
)
WITHOUT_EFFECT = [
    (COCO, 'max_epochs', 'train_cfg.max_epochs has taken its value'),
    (COCO, 'lr', 'is optim_wrapper.optimizer.lr meant'),
    (COCO, 'batch_size', 'is train_dataloader.batch_size meant'),
    (COCO, 'num_workers', 'is train_dataloader.num_workers meant'),
    (COCO, 'data_root', 'train_dataloader.dataset.data_root'),
    (COCO, 'lode_from', 'is load_from meant'),
    (COCO, 'optim_wrapper.paramwise_cfg.norm_decay_mul', 'norm_decay_mult meant'),
    (COCO, 'model.train_cfg.rcnn.sampler.nums', 'sampler.num meant'),
    (COCO, 'model.test_cfg.rcnn.score_th', 'rcnn.score_thr meant'),
    (COCO, 'default_hooks.checkpont.interval', 'default_hooks.checkpoint meant'),
    (COCO, 'env_cfg.cudnn_benchmarkk', 'env_cfg.cudnn_benchmark meant'),
    (COCO, 'train_dataloader.dataset.metainfo.clases', 'metainfo.classes meant'),
    (CLASSIFIER, 'max_iters', 'train_cfg.max_iters'),
    (CLASSIFIER, 'considered', 'model.backbone.considered'),
    (VIDEO, 'ann_file_train', 'train_dataloader.dataset.ann_file has taken its value'),
]
WITH_EFFECT = [
    (COCO, 'train_cfg.max_epochs'),
    (COCO, 'train_dataloader.dataset.indices'),
    (COCO, 'train_dataloader.drop_last'),
    (COCO, 'optim_wrapper.paramwise_cfg.norm_decay_mult'),
    (COCO, 'optim_wrapper.paramwise_cfg.custom_keys.anything.lr_mult'),
    (COCO, 'optim_wrapper.clip_grad.max_norm'),
    (COCO, 'optim_wrapper.accumulative_counts'),
    (COCO, 'model.backbone.with_cp'),
    (COCO, 'model.train_cfg.rcnn.sampler.add_gt_as_proposals'),
    (COCO, 'env_cfg.cudnn_benchmark'),
    (COCO, 'randomness.seed'),
    (COCO, 'load_from'),
    (COCO, 'find_unused_parameters'),
    (COCO, 'nonfinite_loss'),
    (CLASSIFIER, 'train_dataloader.dataset.skip_broken'),
    (CLASSIFIER, 'param_scheduler.1.eta_min'),
    (VIDEO, 'model.cls_head.dropout_ratio'),
    (VIDEO, 'model.backbone.average_prior'),
]


@pytest.mark.parametrize(('config', 'option', 'words'), WITHOUT_EFFECT)
def test_an_option_without_effect_is_refused(load, config, option, words):
    with pytest.raises(UserError) as caught:
        load(config, **{option: 7})
    assert words in str(caught.value) and option.rsplit('.', 1)[0] in str(caught.value)


@pytest.mark.parametrize(('config', 'option'), WITH_EFFECT)
def test_an_option_with_an_effect_passes(load, config, option):
    load(config, **{option: 1})


def test_a_key_that_a_module_of_the_users_reads(repo, tmp_path, monkeypatch):
    from mmctx.cli.config import load_config

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / 'own_hook_of_a_user.py').write_text("def f(runner): runner.cfg.get('my_setting')\n")
    config = tmp_path / 'own.py'
    base = repo / 'configs' / 'ctx_resnet_tiny_imagenet.py'
    imports = "custom_imports = dict(imports=['own_hook_of_a_user'])\n"
    config.write_text(f'_base_ = {str(base)!r}\n{imports}my_setting = 1\nother_setting = 7\n')
    assert load_config(str(config), dict(my_setting=2)).my_setting == 2
    with pytest.raises(UserError, match=r"'other_setting' is a variable of .* that nothing reads"):
        load_config(str(config), dict(other_setting=2))
