"""Checkpoints that are written atomically."""

from contextlib import nullcontext
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook

from mmctx.checkpoints.atomic_backend import NAME
from mmctx.files import atomic_write, leftovers
from mmctx.registry import HOOKS

INTERRUPTED = 'interrupted.pth'
SUPERSEDED = 'superseded_ckpt'


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's hook, but a crash or a full disk while saving leaves the previous checkpoint.

    A checkpoint appears under its name once all of it is on the disk, and only then are older ones
    removed, so the disk needs room for one more than `max_keep_ckpts`. Remote storage and
    `backend_args` in the config work as in mmengine. It takes the arguments of
    `mmengine.hooks.CheckpointHook`.
    """

    backend_args: dict | None

    def before_train(self, runner) -> None:
        """Choose how files are written, and remove what a killed run had no time to remove."""
        out_dir = self.out_dir or runner.work_dir
        plain = self.backend_args is None and self.file_client_args is None
        if plain and type(get_file_backend(out_dir)) is LocalBackend:
            self.backend_args = dict(backend=NAME)
        super().before_train(runner)
        self._forget_files_elsewhere(runner)
        if self._is_atomic and is_main_process():
            for part in leftovers(self.out_dir, '*.pth'):
                part.unlink(missing_ok=True)
            self._remove_superseded(runner)

    def _remove_superseded(self, runner):
        """Remove the checkpoint that the one which is resumed from has taken the place of."""
        name = runner.message_hub.runtime_info.get(SUPERSEDED)
        kept = {self.filename_tmpl.format(step) for step in getattr(self, 'keep_ckpt_ids', ())}
        if isinstance(name, str) and name not in kept and Path(name).name == name:
            (Path(self.out_dir) / name).unlink(missing_ok=True)

    @property
    def _is_atomic(self):
        return self.backend_args == dict(backend=NAME)

    def _deferred_removals(self):
        return self.file_backend.deferred_removals() if self._is_atomic else nullcontext()

    def _forget_files_elsewhere(self, runner):
        # The hook deletes the best checkpoint when there is a better one. Its path is read from a
        # checkpoint, so it could name a file of another run.
        def inside(path):
            return path is not None and Path(path).parent == Path(self.out_dir)

        if hasattr(self, 'best_ckpt_path') and not inside(self.best_ckpt_path):
            self.best_ckpt_path = None
        if hasattr(self, 'best_ckpt_path_dict'):
            self.best_ckpt_path_dict = {
                name: path if inside(path) else None
                for name, path in self.best_ckpt_path_dict.items()
            }

    def _save_checkpoint_with_step(self, runner, step, meta):
        kept = getattr(self, 'keep_ckpt_ids', ())
        if self.max_keep_ckpts > 0 and len(kept) == self.max_keep_ckpts and kept[-1] != step:
            # A kill may come between the writing of the one and the removal of the other.
            runner.message_hub.update_info(SUPERSEDED, self.filename_tmpl.format(kept[0]))
        with self._deferred_removals():
            super()._save_checkpoint_with_step(runner, step, meta)
        interrupted = Path(self.out_dir) / INTERRUPTED
        resumed = Path(str(runner._load_from)).resolve() == interrupted.resolve()
        if is_main_process() and resumed:
            interrupted.unlink(missing_ok=True)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        with self._deferred_removals():
            super()._save_best_checkpoint(runner, metrics)

    def save_interrupted(self, runner, iteration: int) -> str:
        """Save the state of a run that is about to end.

        Args:
            runner (Runner): Runner of the run.
            iteration (int): Number of iterations done.

        Returns:
            str: Path of the checkpoint, from which the next `--resume` starts.
        """
        path = self.file_backend.join_path(self.out_dir, INTERRUPTED)
        runner.save_checkpoint(
            self.out_dir,
            INTERRUPTED,
            self.file_client_args,
            meta=dict(epoch=runner.epoch, iter=iteration),
            by_epoch=False,
            backend_args=self.backend_args,
        )
        if is_main_process():
            with atomic_write(Path(runner.work_dir) / 'last_checkpoint') as file:
                file.write(path.encode())
        return path
