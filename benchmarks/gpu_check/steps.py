"""The steps of the check, the longest first."""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from .sizes import Place

ROOT = Path(__file__).resolve().parents[2]
GPU_TEST_PROCESSES = 8


class Step(NamedTuple):
    """A step of the check.

    Attributes:
        name (str): Name of the step for `--steps`, logs and the summary.
        seconds (int): Time limit in seconds, several times what the step takes on an H100.
        about (str): Description of the step for the reader.
    """

    name: str
    seconds: int
    about: str


DATA = Step('data', 60, 'images, clips and shapes, if no real data is named')
STEPS = (
    Step('op', 300, 'the tests of the op and of CUDA graphs on the device'),
    Step('compile', 300, 'torch.compile of a classifier: one graph for all image sizes'),
    Step('backbones-convnext', 240, 'Contextual ConvNeXt in mixed precision'),
    Step('backbones-resnet', 240, 'Contextual ResNet50 and TSM in mixed precision'),
    Step('backbones-ablations', 240, 'the rows of Tables 4-6 in mixed precision'),
    Step('train-mask-rcnn', 240, 'Mask R-CNN learns and resumes'),
    Step('train-tsm', 240, 'TSM learns and resumes'),
    Step('train-classifier', 240, 'an ImageNet classifier learns and resumes'),
    Step('train-distributed', 180, 'tools/dist_train.sh CONFIG 1 with CUDA graphs'),
)
# Module and function of a step, or of a kind of steps, which takes the part after the hyphen.
FUNCTIONS = {
    'data': ('data', 'render'),
    'compile': ('compiling', 'check'),
    'backbones': ('backbones', 'check'),
    'train': ('training', 'train'),
    'train-distributed': ('training', 'train_distributed'),
}
NAMES = tuple(step.name for step in STEPS)


def needs_data(step: Step) -> bool:
    """Whether a step learns the data that `DATA` renders."""
    return step.name.startswith('train-')


def command(step: Step, place: Place) -> list[str]:
    """Command that runs a step in its own process.

    Args:
        step (Step): The step.
        place (Place): Device and folder of the check.

    Returns:
        list[str]: Words of the command.
    """
    if step.name == 'op':
        # Verbose, so that the log names the failed tests even if the step is ended before pytest.
        pytest = [sys.executable, '-m', 'pytest', '-v', '-p', 'no:cacheprovider']
        if place.small:
            # The default test suite runs all of them.
            return [*pytest, str(ROOT / 'tests' / 'ops'), '-k', 'without_context']
        processes = min(GPU_TEST_PROCESSES, os.cpu_count())
        tests, graphs = (
            ROOT / 'tests' / 'ops',
            ROOT / 'tests' / 'engine' / 'test_graphed_forward.py',
        )
        # Compilation without a GPU gives the same result on a machine with one.
        compiled = f'--ignore={tests / "test_offline_kernels.py"}'
        return [*pytest, '-n', str(processes), compiled, str(tests), str(graphs)]
    arguments = [step.name, place.device, str(place.out)]
    return [sys.executable, '-m', 'benchmarks.gpu_check', *arguments]


def run_step(name: str, place: Place) -> None:
    """Run a step other than the op's tests in this process, and write its results.

    Args:
        name (str): Name of the step.
        place (Place): Device and folder of the check; the results go to `<name>.json` in it.
    """
    kind, _, part = name.partition('-')
    module, function = FUNCTIONS.get(name) or FUNCTIONS[kind]
    # Each step imports only what it needs, because a framework takes seconds.
    call = getattr(import_module(f'.{module}', __package__), function)
    found = call(place) if name in FUNCTIONS else call(part, place)
    (place.out / f'{name}.json').write_text(json.dumps(found))
