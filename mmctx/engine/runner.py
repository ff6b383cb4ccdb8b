"""mmengine's runner, made to resume exactly."""

from contextlib import contextmanager

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import CheckpointLoader, Runner
from torch.utils.data import DataLoader

from mmctx.checkpoints.latest import Latest, read_latest
from mmctx.checkpoints.reading import served_from_memory

from .batches import numbered
from .data import end_workers, instrument
from .hooks.checkpoint_hook import CheckpointHook, MMEngineCheckpointHook
from .hooks.exact_resume_hook import ExactResumeHook
from .hooks.interruption_hook import InterruptionHook
from .hooks.nonfinite_loss_hook import NonFiniteLossHook
from .hooks.pending_validation_hook import PendingValidationHook
from .loops import resumable_loop
from .resumed_settings import (
    HOW,
    check_optimizer,
    other_length,
    other_options,
    other_schedules,
)

MMENGINE_CHECKPOINT_HOOKS = ('CheckpointHook', 'mmengine.CheckpointHook', MMEngineCheckpointHook)
# Those that mmengine registers itself, unless they are None; it refuses None for any other.
MMENGINE_HOOKS = [
    'runtime_info',
    'timer',
    'sampler_seed',
    'logger',
    'param_scheduler',
    'checkpoint',
]


class ResumableRunner(Runner):
    """A runner that can be killed at any moment and resumed as if it had not been.

    It replaces mmengine's checkpoint hook and training loops by those of :mod:`mmctx.engine` and
    adds the hooks of this package that the config does not have itself. Hooks and loops of other
    types in the config stay as they are. `nonfinite_loss` in the config is the action of
    `NonFiniteLossHook`.

    Attributes:
        checkpoints (dict[str, dict]): Contents of checkpoint files by file name, if they were read
            before the run; the run does not read them again.
        latest (Latest | None): Checkpoint of the work dir to resume from, if it has been read.
    """

    def __init__(self, *args, **kwargs):
        self.checkpoints: dict[str, dict] = {}
        self.latest: Latest | None = None
        super().__init__(*args, **kwargs)

    @staticmethod
    def build_dataloader(dataloader, seed=None, diff_rank_seed=False):
        """Build a data loader with numbered batches from a config; return a built one as it is."""
        if isinstance(dataloader, DataLoader):
            return dataloader
        loader = Runner.build_dataloader(numbered(dataloader), seed, diff_rank_seed)
        return instrument(loader, seed)

    def build_train_loop(self, loop):
        """Build the training loop; one of mmengine's becomes one that resumes within an epoch."""
        return super().build_train_loop(resumable_loop(loop) if isinstance(loop, dict) else loop)

    def register_default_hooks(self, hooks=None):
        """Register the default hooks, with this package's checkpoint hook in them.

        None stands for a hook that is not wanted, also where a framework's config added it, such as
        `visualization`.
        """
        hooks = {k: v for k, v in (hooks or {}).items() if v is not None or k in MMENGINE_HOOKS}
        checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
        if isinstance(checkpoint, dict) and checkpoint.get('type') in MMENGINE_CHECKPOINT_HOOKS:
            hooks['checkpoint'] = dict(checkpoint, type=CheckpointHook)
        super().register_default_hooks(hooks)

    def register_hooks(self, default_hooks=None, custom_hooks=None):
        """Register the config's hooks, and those of this package that are not among them."""
        super().register_hooks(default_hooks, custom_hooks)
        for cls, options in (
            (ExactResumeHook, {}),
            (InterruptionHook, {}),
            (PendingValidationHook, {}),
            (NonFiniteLossHook, dict(action=self.cfg.get('nonfinite_loss', 'stop'))),
        ):
            if not any(isinstance(hook, cls) for hook in self.hooks):
                self.register_hook(cls(**options))

    def train(self):
        """Train."""
        with self._workers_ended():
            try:
                return super().train()
            except Exception:
                # mmengine tells hooks of the end of a training only where it has not failed.
                for hook in self.hooks:
                    if isinstance(hook, InterruptionHook):
                        hook.after_train(self)
                raise

    def val(self):
        """Validate."""
        with self._workers_ended():
            return super().val()

    def test(self):
        """Test."""
        with self._workers_ended():
            return super().test()

    @contextmanager
    def _workers_ended(self):
        try:
            yield
        finally:
            for loop in (self._train_loop, self._val_loop, self._test_loop):
                end_workers(getattr(loop, 'dataloader', None))

    def load_or_resume(self):
        """Load or resume a checkpoint; without a name, resume the latest undamaged one.

        Raises:
            UserError: There are checkpoints, but the run cannot be resumed from any of them.
        """
        if self._resume and self._load_from is None and not self._has_loaded:
            self._choose_latest()
        with served_from_memory(self.checkpoints):
            super().load_or_resume()
        self.checkpoints, self.latest = {}, None

    def resume(
        self, filename, resume_optimizer=True, resume_param_scheduler=True, map_location='default'
    ):
        """Resume a checkpoint, and say which settings of the config it overrules.

        Raises:
            UserError: Its optimizer is another one.
        """
        saved = CheckpointLoader.load_checkpoint(filename, 'cpu', 'current')
        overruled, notes = [], list(other_length(self.train_loop, saved.get('message_hub')))
        if resume_optimizer and 'optimizer' in saved:
            self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
            check_optimizer(filename, self.optim_wrapper, saved['optimizer'])
            overruled += other_options(self.optim_wrapper, saved['optimizer'])
        schedules = saved.get('param_schedulers')
        if resume_param_scheduler and isinstance(schedules, list) and self.param_schedulers:
            self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
            overruled += other_schedules(self.param_schedulers, schedules)
        if overruled:
            notes.append(
                'optimizer and schedules are restored as they were saved, not as the config has '
                f'them: {"; ".join(overruled)}. {HOW[0].upper()}{HOW[1:]}'
            )
        for note in notes:
            self.logger.warning(f'resuming from {filename}: {note}')
        super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)

    def _choose_latest(self):
        chosen = [None, []]
        if is_main_process():
            path, contents, passed_over = self.latest or read_latest(self.work_dir)
            chosen = [path, passed_over]
            if contents is not None:
                self.checkpoints = {**self.checkpoints, path: contents}
        broadcast_object_list(chosen)
        self._load_from, passed_over = chosen
        for reason in passed_over:
            self.logger.warning(f'{reason}: resuming from {self._load_from} instead')
        if self._load_from is None:
            self.logger.info(f'nothing to resume in {self.work_dir}: starting afresh')
            self._resume = False

    def _init_model_weights(self):
        with served_from_memory(self.checkpoints):
            super()._init_model_weights()
