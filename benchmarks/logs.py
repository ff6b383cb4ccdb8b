"""Reading of the logs that mmengine writes into a work dir."""

import json
from pathlib import Path


def read_logs(work_dir: Path) -> list[list[dict]]:
    """Read the lines of `scalars.json` of each start of a run, in the order of the starts.

    Args:
        work_dir (Path): Work dir of the run, in which mmengine creates a folder for each start.

    Returns:
        list[list[dict]]: Lines of each start. Those of training have a `loss`, those of validations
        do not.
    """
    # A killed run may leave an incomplete line at the end.
    return [
        [json.loads(line) for line in log.read_text().splitlines() if line.endswith('}')]
        for log in sorted(work_dir.glob('*/vis_data/scalars.json'))
    ]
