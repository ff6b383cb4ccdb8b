"""One call: train vanilla networks, then all rows from their weights, within some minutes."""

import time
import traceback
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import environment
from benchmarks.study.report import records_of_row

from .draws import CROP, draw_crops, draw_order
from .evaluation import evaluate, examine
from .images import read_packed
from .networks import build_network, build_optimizer, considered, start_from
from .records import BASE, append, load, write_table
from .rows import Row
from .trainer import Trainer, release_memory, run_together

# Of a contextual step beside a vanilla one, and of what a row takes beside its steps.
CONTEXT_COST, ROW_SECONDS = 1.6, 5.0
# Until the kernels of the first contextual network are compiled.
COMPILING_SECONDS = 20.0
TIMED_STEPS = 40


class Recipe(NamedTuple):
    """What all trainings share.

    Attributes:
        width (int): Base channels; ResNet50 has 64.
        embed_dims (int): Width of the class embeddings.
        batch (int): Images of a step.
        lr (float): Highest learning rate from scratch; the rows' rates are factors on it.
        base_passes (float): Passes over the training images from scratch.
        passes (float): Further passes of each row.
    """

    width: int = 32
    embed_dims: int = 128
    batch: int = 128
    lr: float = 1.5e-3
    base_passes: float = 30.0
    passes: float = 8.0


class Session:
    """Trainings of some rows and seeds, and their records.

    Args:
        data (Path): File that `images.write_packed` wrote.
        out (Path): Folder of `from_vanilla.jsonl` and `from_vanilla.md`.
        weights (Path): Folder of the vanilla networks' weights.
        recipe (Recipe): What all trainings share.
        seeds (int): Number of seeds: 0, 1, …
        device (torch.device): Where to train.
    """

    def __init__(
        self,
        data: Path,
        out: Path,
        weights: Path,
        recipe: Recipe,
        seeds: int,
        device: torch.device,
    ):
        self.out, self.weights, self.recipe = out, weights, recipe
        self.seeds, self.device = list(range(seeds)), device
        self.images = read_packed(data, device)
        self.classes = self.images['train'].labels.shape[1]
        self.data = data.name, *(len(split.labels) for split in self.images.values())
        for folder in (out, weights):
            folder.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()

    def run(self, rows: list[Row], minutes: float) -> bool:
        """Do what is not done yet, all seeds of a row side by side.

        Args:
            rows (list[Row]): In this order.
            minutes (float): When to begin no more rows. Passes are cut so that, as far as the first
                steps tell, all fit; `inf` for never.

        Returns:
            bool: Whether everything is done.
        """
        until = self.started + 60 * minutes
        base = Row(BASE, '', None)
        vanilla = self._load_weights()
        if vanilla is None:
            share = self._train(base, None, until, rows)
            vanilla = self._load_weights()
            assert vanilla is not None
        else:
            share = self._load_share()
        slowest, failed = 0.0, []
        for row in rows:
            begun = time.monotonic()
            if not self._missing(row, share):
                continue
            if begun + slowest > until:
                print(f'out of time before {row.key}', flush=True)
                return False
            try:
                self._train(row, vanilla, until, rows, share)
            except Exception:
                # A row that fails shall not cost those after it the time on a GPU.
                traceback.print_exc()
                failed.append(row.key)
            slowest = max(slowest, time.monotonic() - begun)
            release_memory()
        if failed:
            print(f'failed: {", ".join(failed)}', flush=True)
        return not failed

    def tabulate(self) -> None:
        """Print and write the table of all that is done."""
        share = self._load_share()
        records = load(self.out, self._identity(share))
        if records:
            write_table(records, self.out, self._describe(records[-1], share))

    def _identity(self, share: float) -> dict:
        return dict(self.recipe._asdict(), share=round(share, 4), data=list(self.data))

    def _missing(self, row: Row, share: float) -> bool:
        done = records_of_row(load(self.out, self._identity(share)), row.key)
        return not done.keys() >= set(self.seeds)

    def _steps(self, passes: float, share: float) -> int:
        return max(round(share * passes * len(self.images['train'].labels) / self.recipe.batch), 1)

    def _train(
        self,
        row: Row,
        vanilla: dict[int, dict[str, Tensor]] | None,
        until: float,
        rows: list[Row],
        share: float = 1.0,
    ) -> float:
        """Train a row's seeds and record them; returns the share of the passes that fits."""
        is_base = vanilla is None
        passes = self.recipe.base_passes if is_base else self.recipe.passes
        trainers = [self._trainer(row, seed, vanilla, passes) for seed in self.seeds]
        per_step = None
        if is_base and until < float('inf'):
            per_step, share = self._fit(trainers, until, rows)
        steps = self._steps(passes, share)
        for trainer in trainers:
            trainer.plan(steps)
        curves: list[list[dict]] = [[] for _ in trainers]
        begun, evaluating, done = time.monotonic(), 0.0, 0
        for part in np.array_split(np.arange(steps), 6 if is_base else 2):
            run_together(trainers, len(part))
            done += len(part)
            paused = time.monotonic()
            for trainer, curve in zip(trainers, curves):
                loss, right = trainer.take_sums()
                found = evaluate(trainer.network, self.images['val'], row.control)
                curve.append(dict(found, step=done, train_loss=loss, train_top1=right))
            evaluating += time.monotonic() - paused
        seconds = time.monotonic() - begun - evaluating
        per_step = 1e3 * seconds / steps / len(trainers)
        where = environment(self.device)
        for seed, trainer, curve in zip(self.seeds, trainers, curves):
            metrics = dict(curve[-1], ms_per_step=per_step, **self._examined(row, trainer))
            record = dict(
                row=row.key,
                seed=seed,
                recipe=self._identity(share),
                settings=row._asdict(),
                params=sum(p.numel() for p in trainer.network.parameters()),
                graph=trainer.graph is not None,
                metrics={name: round(value, 4) for name, value in metrics.items()},
                curve=[{k: round(v, 4) for k, v in point.items()} for point in curve],
                **where,
            )
            if is_base:
                state = {k: v.cpu() for k, v in trainer.network.state_dict().items()}
                torch.save(dict(state=state, share=share), self._file(seed))
            append(self.out, record)
        shown = ', '.join(f'{curve[-1]["top1"]:.1f}' for curve in curves)
        elapsed = time.monotonic() - self.started
        print(
            f'{elapsed:5.0f} s  {row.key}: top-1 {shown}; {steps} steps of {per_step:.2f} ms',
            flush=True,
        )
        return share

    def _examined(self, row: Row, trainer: Trainer) -> dict[str, float]:
        is_other = row.control or 'type' in (row.backbone or {})
        return {} if is_other else examine(trainer.network, self.images['val'])

    def _trainer(
        self, row: Row, seed: int, vanilla: dict[int, dict[str, Tensor]] | None, passes: float
    ) -> Trainer:
        torch.manual_seed(seed)
        network = build_network(row, self.classes, self.recipe.width, self.recipe.embed_dims)
        if vanilla is not None:
            start_from(network, row, vanilla[seed])
        network.to(self.device, memory_format=torch.channels_last).train()
        rng = np.random.default_rng([seed, vanilla is not None])
        steps = max(self._steps(passes, 1.0), TIMED_STEPS)
        count, batch = len(self.images['train'].labels), self.recipe.batch
        return Trainer(
            network,
            build_optimizer(network, self.recipe.lr, None if vanilla is None else row.rates),
            self.images['train'],
            draw_order(count, batch, steps, rng),
            draw_crops(batch, steps, rng),
            row.control,
            row.waiting,
        )

    def _fit(self, trainers: list[Trainer], until: float, rows: list[Row]) -> tuple[float, float]:
        """Milliseconds of a step of one training, and the share of all passes that fits."""
        start = [{k: v.clone() for k, v in t.network.state_dict().items()} for t in trainers]
        run_together(trainers, TIMED_STEPS // 4)
        begun = time.monotonic()
        run_together(trainers, TIMED_STEPS // 2)
        per_step = (time.monotonic() - begun) / (TIMED_STEPS // 2)
        for trainer, state in zip(trainers, start):
            trainer.restart(state)
        steps = self._steps(self.recipe.base_passes, 1.0)
        further = self._steps(self.recipe.passes, 1.0)
        for row in rows:
            steps += further * (1 if row.backbone is None else CONTEXT_COST)
        left = until - time.monotonic() - ROW_SECONDS * (len(rows) + 1) - COMPILING_SECONDS
        share = round(min(max(left / (per_step * steps), 0.02), 1.0), 4)
        print(
            f'{1e3 * per_step / len(trainers):.2f} ms a step; {share:.0%} of the passes', flush=True
        )
        return 1e3 * per_step / len(trainers), share

    def _file(self, seed: int) -> Path:
        name = f'a1_{self.classes}classes_width{self.recipe.width}_{self.recipe.base_passes:g}p'
        return self.weights / f'{name}_seed{seed}.pth'

    def _load_weights(self) -> dict[int, dict[str, Tensor]] | None:
        files = {seed: self._file(seed) for seed in self.seeds}
        if not all(file.is_file() for file in files.values()):
            return None
        return {
            seed: torch.load(file, map_location=self.device, weights_only=True)['state']
            for seed, file in files.items()
        }

    def _load_share(self) -> float:
        file = self._file(self.seeds[0])
        return torch.load(file, map_location='cpu', weights_only=True)['share'] if (
            file.is_file()
        ) else 1.0  # fmt: skip

    def _describe(self, record: dict, share: float) -> str:
        recipe, counts = self.recipe, self.data[1:]
        kept = ', '.join(map(str, considered(self.classes)))
        chance = ' / '.join(f'{100 * n / self.classes:.0f}' for n in considered(self.classes))
        return (
            f'Tiny-ImageNet, {self.classes} classes of 64×64 pixels, compressed again; '
            f'{counts[0]} training and {counts[1]} validation images. {recipe.width} base channels '
            f'(ResNet50: 64), batch {recipe.batch}, AdamW, highest rate {recipe.lr}, label '
            f'smoothing 0.1, crops of 35 to 100 % of the area at {CROP}×{CROP} pixels, validated '
            f'whole. From scratch {share * recipe.base_passes:.1f} passes, then '
            f'{share * recipe.passes:.1f} for each '
            f'row. Kept: {kept} classes, which chance recalls in {chance} %. ±: standard deviation '
            f'over seeds; differences are seed by seed. {record["device"]}, '
            f'torch {record["versions"]["torch"]}, {record["date"][:10]}.'
        )
