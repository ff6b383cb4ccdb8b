"""What a run of tools/train.py did, written down so that two runs can be compared."""

import json
from pathlib import Path

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class RecordTraining(Hook):
    """Losses of each iteration as the mean over the processes, in `losses.json` of the work dir,
    and the parameters before and after training, in `parameters.pth`.
    """

    def before_train(self, runner):
        self.losses, self.before = [], self._parameters(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        values = {k: torch.as_tensor(v).detach().clone() for k, v in outputs.items() if 'loss' in k}
        for value in values.values():
            all_reduce(value, op='mean')
        self.losses.append({name: float(value) for name, value in values.items()})

    def after_train(self, runner):
        if is_main_process():
            folder = Path(runner.work_dir)
            (folder / 'losses.json').write_text(json.dumps(self.losses))
            torch.save((self.before, self._parameters(runner)), folder / 'parameters.pth')

    def _parameters(self, runner):
        return {
            name.removeprefix('module.'): parameter.detach().clone()
            for name, parameter in runner.model.named_parameters()
        }
