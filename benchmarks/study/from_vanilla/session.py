"""One call: train vanilla networks, then rows from their weights, within some minutes."""

import time
import traceback
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import environment
from benchmarks.study.report import records_of_row
from mmctx.files import atomic_write

from .draws import CROP, draw_boxes, draw_crops, draw_order
from .evaluation import answers, examine, in_percent
from .images import read_packed
from .networks import build_network, build_optimizer, considered, start_from
from .records import append, bits, load, write_table
from .rows import BASES, Row
from .trainer import Trainer, release_memory, run_together

# Of a contextual step beside a vanilla one, before either is timed.
CONTEXT_COST = 1.7
# Of a training from scratch, and of a further one.
VALIDATIONS = 6, 2


class Recipe(NamedTuple):
    """What all trainings share.

    Attributes:
        width (int): Base channels; ResNet50 has 64.
        embed_dims (int): Width of the class embeddings.
        batch (int): Images of a step.
        lr (float): Highest learning rate from scratch; the rows' rates are factors on it.
        base_passes (float): Passes over the training images from scratch.
        passes (float): Further passes of each row.
        cutmix (float): Share of the batches that are mixed by CutMix.
        bases (int): Number of vanilla networks, from which the seeds of the rows start in turn.
    """

    width: int = 32
    embed_dims: int = 128
    batch: int = 128
    lr: float = 1.5e-3
    base_passes: float = 45.0
    passes: float = 9.0
    cutmix: float = 0.5
    bases: int = 1


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
        sizes = (len(split.labels) for split in self.images.values())
        self.identity = dict(recipe._asdict(), data=[data.name, *sizes])
        for folder in (out, weights):
            folder.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()

    def run(self, rows: list[Row], minutes: float, at_once: int = 1) -> bool:
        """Do what is not done yet, all seeds of a row side by side.

        Args:
            rows (list[Row]): In this order, after the vanilla networks that they start from.
            minutes (float): When to end: nothing begins that would last longer, as far as what was
                trained before tells. `inf` for never.
            at_once (int): How many rows are trained side by side. Defaults to 1.

        Returns:
            bool: Whether everything is done.
        """
        until = self.started + 60 * minutes
        # Of a step of one vanilla training.
        seconds, failed = 0.0, False
        bases = [BASES[family] for family in dict.fromkeys(row.family for row in rows)]
        groups = list(_groups([*bases, *rows], at_once))
        while groups:
            together = groups.pop(0)
            jobs = [(row, seed) for row in together for seed in self._missing(row)]
            work = sum(self._work(row) for row, _ in jobs)
            begun = time.monotonic()
            if not jobs:
                continue
            alone = [[row] for row in together] if len(together) > 1 else []
            if begun + seconds * work > until and alone:
                groups[:0] = alone
                continue
            if begun + seconds * work > until:
                names = ', '.join(row.key for row in together)
                print(f'{begun - self.started:5.0f} s  no time for {names}', flush=True)
                return False
            try:
                self._train(jobs)
                seconds = (time.monotonic() - begun) / work
            except Exception:
                # A row that fails shall not cost others the time on a GPU.
                traceback.print_exc()
                failed |= not alone
                groups[:0] = alone
            release_memory()
        return not failed

    def tabulate(self) -> None:
        """Print and write the table of all that is done."""
        records = load(self.out, self.identity)
        if records:
            write_table(records, self.out, self._describe(records[-1]))

    def _missing(self, row: Row) -> list[int]:
        seeds = list(range(self.recipe.bases)) if row.from_scratch else self.seeds
        if row == BASES[row.family]:
            return [seed for seed in seeds if not self._file(row, seed).is_file()]
        done = records_of_row(load(self.out, self.identity), row.key)
        return [seed for seed in seeds if seed not in done]

    def _steps(self, row: Row) -> int:
        passes = self.recipe.base_passes if row.from_scratch else self.recipe.passes
        return max(round(passes * len(self.images['train'].labels) / self.recipe.batch), 1)

    def _work(self, row: Row) -> float:
        """Steps of a vanilla training that take as long as one of a row."""
        return self._steps(row) * (1 if row.backbone is None else CONTEXT_COST)

    def _train(self, jobs: list[tuple[Row, int]]) -> None:
        """Train some rows and seeds of equally many steps side by side, and record them."""
        steps = self._steps(jobs[0][0])
        trainers = [self._trainer(row, seed, steps) for row, seed in jobs]
        curves: list[list[dict]] = [[] for _ in trainers]
        rights: dict[int, str] = {}
        seconds, done = 0.0, 0
        validations = VALIDATIONS[0 if jobs[0][0].from_scratch else 1]
        for part in np.array_split(np.arange(steps), min(validations, steps)):
            begun = time.monotonic()
            run_together(trainers, len(part))
            seconds += time.monotonic() - begun
            done += len(part)
            for (row, _), trainer, curve in zip(jobs, trainers, curves):
                loss, right = trainer.take_sums()
                hits = answers(trainer.network, self.images['val'], row.control)
                rights[id(trainer)] = bits(hits['top1'])
                curve.append(dict(in_percent(hits), step=done, train_loss=loss, train_top1=right))
        per_step = 1e3 * seconds / steps / len(trainers)
        for (row, seed), trainer, curve in zip(jobs, trainers, curves):
            metrics = dict(curve[-1], ms_per_step=per_step)
            if not row.control:
                metrics.update(examine(trainer.network, self.images['val']))
            record = dict(
                row=row.key,
                seed=seed,
                recipe=self.identity,
                settings=row._asdict(),
                params=sum(p.numel() for p in trainer.network.parameters()),
                graph=trainer.graph is not None,
                side_by_side=len(trainers),
                metrics={name: round(value, 4) for name, value in metrics.items()},
                curve=[{k: round(v, 4) for k, v in point.items()} for point in curve],
                right=rights[id(trainer)],
                **environment(self.device),
            )
            if row == BASES[row.family]:
                self._save(trainer, self._file(row, seed))
            append(self.out, record)
        elapsed = time.monotonic() - self.started
        shown = ', '.join(f'{row.key} {c[-1]["top1"]:.1f}' for (row, _), c in zip(jobs, curves))
        print(f'{elapsed:5.0f} s  {shown}; {steps} steps of {per_step:.2f} ms', flush=True)

    def _trainer(self, row: Row, seed: int, steps: int) -> Trainer:
        torch.manual_seed(seed)
        network = build_network(row, self.classes, self.recipe.width, self.recipe.embed_dims)
        if not row.from_scratch:
            file = self._file(BASES[row.family], seed % self.recipe.bases)
            start_from(network, row, _load_weights(file))
        network.to(self.device, memory_format=torch.channels_last).train()
        rng = np.random.default_rng([seed, not row.from_scratch])
        count, batch = len(self.images['train'].labels), self.recipe.batch
        return Trainer(
            network,
            build_optimizer(network, self.recipe.lr, None if row.from_scratch else row.rates),
            self.images['train'],
            draw_order(count, batch, steps, rng),
            draw_crops(batch, steps, rng),
            draw_boxes(steps, self.recipe.cutmix, rng),
            row.control,
            row.waiting,
        )

    def _file(self, base: Row, seed: int) -> Path:
        recipe = self.recipe
        name = f'{base.key}_{self.classes}classes_width{recipe.width}_{recipe.base_passes:g}passes'
        return self.weights / f'{name}_cutmix{recipe.cutmix:g}_seed{seed}.pth'

    def _save(self, trainer: Trainer, file: Path) -> None:
        # In half precision, to be carried; all rows start from what is read, so from the same.
        state = {name: _halved(value.cpu()) for name, value in trainer.network.state_dict().items()}
        with atomic_write(file) as out:
            torch.save(state, out)

    def _describe(self, record: dict) -> str:
        recipe, counts = self.recipe, self.identity['data'][1:]
        kept = ', '.join(map(str, considered(self.classes)))
        chance = ' / '.join(f'{100 * n / self.classes:.0f}' for n in considered(self.classes))
        return (
            f'Tiny-ImageNet, {self.classes} classes of 64×64 pixels, compressed again; '
            f'{counts[0]} training and {counts[1]} validation images. {recipe.width} base channels '
            f'(ResNet50: 64), batch {recipe.batch}, AdamW, highest rate {recipe.lr}, label '
            f'smoothing 0.1, crops of 35 to 100 % of the area at {CROP}×{CROP} pixels, CutMix in '
            f'{recipe.cutmix:.0%} of the batches, validated whole. {recipe.base_passes:g} passes '
            f'from scratch ({recipe.bases} vanilla network(s) of each kind, where the rows start), '
            f'then {recipe.passes:g} for each row. Kept: {kept} classes, which chance recalls in '
            f'{chance} %. ±: standard deviation over seeds; differences are seed by seed, in '
            'brackets the standard error that the choice of validation images leaves them. '
            'ms/step: of all that was trained side by side, by their number. '
            f'{record["device"]}, torch {record["versions"]["torch"]}, {record["date"][:10]}.'
        )


def _groups(rows: list[Row], at_once: int) -> Iterator[list[Row]]:
    """Rows that follow each other and have equally many steps, some at once."""
    for _, group in groupby(rows, lambda row: row.from_scratch):
        alike = list(group)
        for begin in range(0, len(alike), at_once):
            yield alike[begin : begin + at_once]


def _halved(value: Tensor) -> Tensor:
    half = value.half()
    return half if value.is_floating_point() and half.isfinite().all() else value


def _load_weights(file: Path) -> dict[str, Tensor]:
    state = torch.load(file, map_location='cpu', weights_only=True)
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
