"""The logs that mmengine writes into a work dir."""

import json
from pathlib import Path


def read_logs(work_dir: Path) -> list[list[dict]]:
    """Lines of `scalars.json` of each start of a run, the first start first.

    Args:
        work_dir (Path): The run's folder, in which mmengine makes one for each start.

    Returns:
        list[list[dict]]: Training lines have a `loss`, the lines of validations do not.
    """
    # A run that was killed may leave half a line at the end.
    return [
        [json.loads(line) for line in log.read_text().splitlines() if line.endswith('}')]
        for log in sorted(work_dir.glob('*/vis_data/scalars.json'))
    ]
