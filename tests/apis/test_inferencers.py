"""The frameworks' own ways to use a network.

One of each of the ways of mmdet and mmpretrain runs in an interpreter that has only imported mmctx;
the slow tests run all of them so.
"""

import json

import pytest
from trained_networks import run_python

CLASSIFY = """
import sys, mmctx
from mmpretrain import ImageClassificationInferencer
inferencer = ImageClassificationInferencer(sys.argv[1], pretrained=sys.argv[2], device='cpu')
result, = inferencer(sys.argv[3])
import json
print()
print(json.dumps([result['pred_class'], len(result['pred_scores'])]))
"""
DETECT = """
import sys, mmctx
from mmdet.apis import DetInferencer
inferencer = DetInferencer(sys.argv[1], sys.argv[2], device='cpu', show_progress=False)
prediction, = inferencer(sys.argv[3], no_save_vis=True)['predictions']
import json
print(json.dumps([len(prediction['scores']), inferencer.model.dataset_meta['classes'][0]]))
"""
DETECT_WITHOUT_CONFIG = DETECT.replace('sys.argv[1], sys.argv[2]', 'weights=sys.argv[2]')
RECOGNISE = """
import sys, mmctx
from mmaction.apis import MMAction2Inferencer
inferencer = MMAction2Inferencer(sys.argv[1], sys.argv[2], device='cpu')
result = inferencer(sys.argv[3])
import json
print(json.dumps([len(scores) for scores in result['predictions'][0]['rec_scores']]))
"""
BY_NAME = """
import mmctx
from mmpretrain import get_model, inference_model, list_models
import sys
names = list_models('*ctx*', task='Image Classification')
model = get_model('ctx_convnext_t_in1k', backbone=dict(num_classes=10))
import json
print(json.dumps([names, model.backbone.contextualizing.considered,
                  [name for name in list_models() if name.startswith(('tsm_ctx', 'mask_rcnn'))],
                  inference_model('ctx_resnet50_in1k', sys.argv[1])['pred_class']]))
"""


@pytest.fixture(params=['loaded', pytest.param('fresh', marks=pytest.mark.slow)])
def run_code(request, run_command):
    """Run code where the frameworks have been imported, or not; the last line that it prints."""
    if request.param == 'fresh':
        return run_python

    def run(code, *arguments, cwd):
        result = run_command('-c', code, *arguments, cwd=cwd)
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines()[-1]

    return run


def test_image_classification_inferencer(classifier, pictures, tmp_path, run_code):
    arguments = classifier / 'config.py', classifier / 'epoch_1.pth', pictures / 'a.jpg'
    name, scores = json.loads(run_code(CLASSIFY, *arguments, cwd=tmp_path))
    assert name in ('ant', 'bee', 'cat', 'dog', 'eel', 'fox') and scores == 6


def test_det_inferencer(detector, pictures, tmp_path, run_code):
    arguments = detector / 'config.py', detector / 'epoch_1.pth', pictures / 'a.jpg'
    for run, code in ((run_python, DETECT), (run_code, DETECT_WITHOUT_CONFIG)):
        found, name = json.loads(run(code, *arguments, cwd=tmp_path))
        assert 1 <= found <= 5 and isinstance(name, str)


def test_mmaction2_inferencer(recognizer, clip, tmp_path, run_code):
    arguments = recognizer / 'config.py', recognizer / 'epoch_1.pth', clip
    assert json.loads(run_code(RECOGNISE, *arguments, cwd=tmp_path)) == [3]


def test_models_by_name(pictures, tmp_path):
    ran = run_python(BY_NAME, pictures / 'a.jpg', cwd=tmp_path)
    names, considered, others, predicted = json.loads(ran)
    assert {'ctx_convnext_t_in1k', 'ctx_resnet50_in1k'} <= set(names)
    assert considered == [5, 2, 1]
    assert others == [] and predicted is not None
