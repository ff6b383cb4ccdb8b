"""A step of the check in a process of its own: STEP DEVICE FOLDER."""

import sys
import warnings
from pathlib import Path

from .sizes import Place
from .steps import run_step

if __name__ == '__main__':
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    step, device, out = sys.argv[1:]
    run_step(step, Place(device, Path(out)))
