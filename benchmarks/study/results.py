"""Tables and curves of the finished runs, from their records and configs."""

from pathlib import Path

from .curves import draw_curves
from .jobs import Job
from .plan import PARTS
from .report import part_report
from .speed import load_times

DRAWN = ('a1', 'a2', 'a3', 'a4', 'a5', 'rerank', 'warm-up', 'a2-rerank', 'context-lr')


def jobs_by_row(kept: list[tuple[dict, Job]]) -> dict[str, dict[str, Job]]:
    """Job of the first seed of each row that has records, by part and row, in the plan's order."""
    jobs = sorted((job for _, job in kept), key=lambda job: job.run.seed, reverse=True)
    first = {(job.run.part, job.run.row.key): job for job in jobs}
    found = {
        key: {row.key: first[key, row.key] for row in part.rows if (key, row.key) in first}
        for key, part in PARTS.items()
    }
    return {key: rows for key, rows in found.items() if rows}


def find_times(out: Path, part: str, rows: dict[str, Job]) -> dict:
    """Measured times of the rows; empty if they do not cover all of them."""
    return load_times(out, part, {key: job.fingerprint for key, job in rows.items()})


def describe_recipe(records: list[dict], job: Job) -> str:
    """Describe data and budget of a part, from its records and the job of its first row."""
    cfg = job.cfg
    training, validation = (sorted({r['images'][i] for r in records}) for i in (0, 1))
    images = f'{_or(training)} training and {_or(validation)} validation images'
    batch, wrapper = cfg.train_dataloader.batch_size, cfg.optim_wrapper
    optimizer = (
        f'{wrapper.optimizer.type}, learning rate {wrapper.optimizer.lr}, warm-up, cosine decay, '
        f'weight decay {wrapper.optimizer.weight_decay}'
    )
    optimizer += ', mixed precision' if wrapper.get('type') == 'AmpOptimWrapper' else ''
    if job.run.part == 'detection':
        return f'{images}; {cfg.train_cfg.max_epochs} epochs, batch {batch}; {optimizer}.'
    passes = cfg.train_cfg.max_iters * batch / training[-1]
    chance = ' / '.join(f'{100 * kept / cfg.num_classes:.0f}' for kept in cfg.considered)
    return (
        f'{cfg.num_classes} classes of {cfg.image_size}×{cfg.image_size} pixels, {images}, '
        f'{cfg.model.backbone.base_channels} base channels (ResNet50: 64); '
        f'{cfg.train_cfg.max_iters} iterations of {batch} images ({passes:.1f} passes), crops and '
        f'mirroring; {optimizer}. Kept after the stages, unless stated: '
        f'{", ".join(map(str, cfg.considered))} classes, which chance recalls in {chance} %.'
    )


def _or(counts: list[int]) -> str:
    return ' or '.join(f'{count:,}' for count in counts)


def write_results(kept: list[tuple[dict, Job]], out: Path) -> None:
    """Write `table.md` and `curves.png`, and print the tables; do nothing without records."""
    if not kept:
        return
    texts = []
    for part, rows in jobs_by_row(kept).items():
        own = [record for record, job in kept if job.run.part == part]
        recipe = describe_recipe(own, next(iter(rows.values())))
        texts.append(part_report(part, own, find_times(out, part, rows), recipe))
    text = '\n\n'.join(texts)
    (out / 'table.md').write_text(f'{text}\n', encoding='utf-8')
    draw_curves([record for record, _ in kept], out / 'curves.png', DRAWN)
    print(text)
