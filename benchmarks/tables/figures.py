"""The paper's tables beside this project's figures."""

from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from benchmarks.logs import read_logs
from benchmarks.text import NOTHING
from benchmarks.throughput import measure_throughput
from mmctx.apis.complexity import measure_complexity
from mmctx.cli.config import load_config
from mmctx.cli.running import build_model
from mmctx.compat.config_paths import config_dir

from .paper import Row, Table


class Figures(NamedTuple):
    """This project's figures of a row.

    Attributes:
        params (int): Number of parameters.
        flops (int): Multiply-adds of one image or clip.
        speed (float | None): Images or clips per second; None if not measured.
        accuracy (Accuracy | None): Accuracy of a run; None if there is no run.
    """

    params: int
    flops: int
    speed: float | None
    accuracy: 'Accuracy | None'


class Accuracy(NamedTuple):
    """The last validation of a run.

    Attributes:
        metrics (dict): Line of the validation in mmengine's log.
        epochs (int): Number of epochs of the recipe.
    """

    metrics: dict
    epochs: int


def config_path(row: Row) -> Path:
    """Path of a row's config file, in a checkout or in an installed package."""
    return config_dir().resolve() / f'{row.config}.py'


def compare(value: Decimal, printed: str, truncated: bool = False, more: int = 0) -> str:
    """Compare a figure with the paper's.

    Args:
        value (Decimal): Figure of this project, in the printed unit.
        printed (str): Figure as the paper prints it, for example '25.5M'.
        truncated (bool): Whether the paper truncates figures instead of rounding them. Defaults to
            False.
        more (int): Number of digits to show in addition to the paper's. Defaults to 0.

    Returns:
        str: Figure with '✓' if it agrees with the paper's by the paper's rule, with '(✓)' if it
        agrees only by the other rule, otherwise with the difference.
    """
    digits = printed.rstrip('MG')
    target = Decimal(digits)
    rule, other = (ROUND_DOWN, ROUND_HALF_UP) if truncated else (ROUND_HALF_UP, ROUND_DOWN)
    ours = value.quantize(target, rounding=rule)
    if ours == target:
        mark = '✓'
    elif value.quantize(target, rounding=other) == target:
        mark = '(✓)'
    else:
        mark = f'({ours - target:+})'
    decimals = len(digits.partition('.')[2]) + more
    return f'{value:.{decimals}f}{printed.removeprefix(digits)} {mark}'


def read_accuracy(work_dir: Path, names: list[str]) -> dict | None:
    """Read the last validation of the newest run in a work dir.

    Args:
        work_dir (Path): Work dir, in which mmengine creates a folder for each run.
        names (list[str]): Metrics by which a line of the log is known to be a validation.

    Returns:
        dict | None: Metrics by name, and the epoch as `step`; None if there is no validation.
    """
    for lines in reversed(read_logs(work_dir)):
        validations = [entry for entry in lines if entry.keys() >= set(names)]
        if validations:
            return validations[-1]
    return None


def find_accuracy(table: Table, row: Row, work_dirs: Path) -> Accuracy | None:
    """Find the accuracy of a row's own run or, if there is none, of a run of the same network.

    Args:
        table (Table): The row's table.
        row (Row): The row.
        work_dirs (Path): Folder of the work dirs, each named like its config.

    Returns:
        Accuracy | None: None if there is no such run.
    """
    epochs = Config.fromfile(config_path(row), import_custom_modules=False).train_cfg.max_epochs
    names = [name for group in table.metrics.values() for name in group]
    for config in filter(None, (row.config, row.same_as)):
        metrics = read_accuracy(work_dirs / Path(config).name, names)
        if metrics:
            return Accuracy(metrics, epochs)
    return None


def measure_row(
    table: Table, row: Row, work_dirs: Path, batch_size: int = 0, seconds: float = 0
) -> Figures:
    """Build a row's model and measure its figures.

    Args:
        table (Table): The row's table.
        row (Row): The row.
        work_dirs (Path): Folder of the work dirs, each named like its config.
        batch_size (int): Number of images or clips in a batch for the throughput; 0 measures no
            throughput. Defaults to 0.
        seconds (float): Duration of the measurement of the throughput, in seconds. Defaults to 0.

    Returns:
        Figures: This project's figures of the row.
    """
    model = build_model(load_config(str(config_path(row)), {'pretrained': None}))
    params, flops = measure_complexity(model, table.shape)
    speed = None
    if batch_size:
        images = batch_size * table.frames
        speed = measure_throughput(model, table.shape, images, seconds) / table.frames
    return Figures(params, flops, speed, find_accuracy(table, row, work_dirs))


def table_cells(table: Table, figures: dict[str, Figures]) -> list[list[str]]:
    """Make all cells of a table, headings first.

    Args:
        table (Table): The paper's table.
        figures (dict[str, Figures]): This project's figures, by row key.

    Returns:
        list[list[str]]: Cells, in which each column of the paper has this project's column to its
            right.
    """
    columns = [_column(table, row, figures) for row in table.rows]
    headings = [name for name in columns[0] if any(name in column for column in columns)]
    return [headings, *([column[name] for name in headings] for column in columns)]


def _column(table: Table, row: Row, figures: dict[str, Figures]) -> dict[str, str]:
    ours = figures[row.key]
    params, flops = Decimal(ours.params).scaleb(-6), Decimal(ours.flops).scaleb(-9)
    cells = {'row': row.key, 'model': row.model}
    if row.params:
        cells["paper's #param."] = row.params
        cells['#param.'] = compare(params, row.params, table.truncated, more=2)
    else:
        cells['#param.'] = f'{params:.2f}M'
    cells["paper's FLOPs"] = row.flops
    cells['FLOPs'] = compare(flops, row.flops, table.truncated, more=2)
    if row.speed:
        speeds = {other.key: float(other.speed) for other in table.rows}
        cells["paper's img/s"] = row.speed
        cells["paper's relative"] = _relative(row, speeds)
    if ours.speed is not None:
        cells[_unit(table)] = f'{ours.speed:.{1 if ours.speed >= 10 else 3}f}'
        cells['relative'] = _relative(row, {key: other.speed for key, other in figures.items()})
    for (heading, names), printed in zip(table.metrics.items(), row.accuracy):
        cells[f"paper's {heading}"] = printed
        cells[heading] = _accuracy_cell(ours.accuracy, names, printed, table.percent)
    return cells


def _unit(table: Table) -> str:
    return 'clips/s' if table.frames > 1 else 'img/s'


def _relative(row: Row, speeds: dict) -> str:
    vanilla = speeds.get(row.vanilla)
    return f'{speeds[row.key] / vanilla:.3f}' if vanilla else NOTHING


def _accuracy_cell(accuracy: Accuracy | None, names, printed: str, percent: int) -> str:
    if accuracy is None:
        return NOTHING
    values = [Decimal(str(accuracy.metrics[name])) * percent for name in names]
    targets = printed.split('/')
    epoch = accuracy.metrics['step']
    if epoch < accuracy.epochs:
        shown = '/'.join(str(v.quantize(Decimal(t))) for v, t in zip(values, targets))
        return f'{shown} after {epoch} of {accuracy.epochs} epochs'
    return ' / '.join(compare(value, target) for value, target in zip(values, targets))


def legend(table: Table, device: str = '') -> list[str]:
    """Explain the marks and columns of a table.

    Args:
        table (Table): The table.
        device (str): Device of the throughput measurement. Defaults to '', not measured.

    Returns:
        list[str]: Lines of the explanation.
    """
    rule, other = ('truncated', 'rounded') if table.truncated else ('rounded', 'truncated')
    of = 'ResNet50' if table.truncated else 'all networks but ResNet50'
    size = f'{table.shape[1]}×{table.shape[0]}'
    each = f'clip of {table.frames} frames' if table.frames > 1 else 'image'
    lines = [
        f'✓ #param. or FLOPs agree to the printed digit when {rule}, as the paper prints those of '
        f'{of}; (✓) only when {other}; else the difference. Accuracies are rounded.',
        f'FLOPs are multiply-adds of one {each}, {size}. {NOTHING} no run found.',
    ]
    if table.rows[0].speed:
        lines.append("The paper's img/s are of a V100.")
    if device:
        lines.append(
            f'{_unit(table)} on {device}, float32; '
            "relative: to the vanilla network's, if that is printed."
        )
    return [*lines, table.note] if table.note else lines
