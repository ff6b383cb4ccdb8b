"""Print the metrics of a finished training: `progress.py FOLDER PART STEP`, run by make."""

import sys
from pathlib import Path

from benchmarks.logs import read_logs

from .plan import PARTS


def read_run(folder: Path) -> tuple[list[dict], list[dict]]:
    """Read training and validation lines of a run, joined across its interruptions.

    Args:
        folder (Path): Work dir of the run.

    Returns:
        tuple[list[dict], list[dict]]: Lines of mmengine's log in the order of `step`, which counts
        iterations in training, iterations or epochs in validation.
    """
    kinds: tuple[dict, dict] = ({}, {})
    for lines in read_logs(folder):
        for entry in lines:
            kinds['loss' not in entry][entry['step']] = entry
    training, validations = ([kind[step] for step in sorted(kind)] for kind in kinds)
    return training, validations


def last_validation(folder: Path, step: int) -> dict | None:
    """Validation after the last step of a run; None if it is missing."""
    _, validations = read_run(folder)
    return validations[-1] if validations and validations[-1]['step'] == step else None


def main():
    folder, part, step = Path(sys.argv[1]), PARTS[sys.argv[2]], int(sys.argv[3])
    found = last_validation(folder, step)
    if found is None:
        sys.exit(f'{folder} has no validation after step {step}')
    figures = (f'{name} {part.percent * found[key]:.1f}' for name, key in part.metrics.items())
    print(f'{folder.name}: {", ".join(figures)}', flush=True)


if __name__ == '__main__':
    main()
