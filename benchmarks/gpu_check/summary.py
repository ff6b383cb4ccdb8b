"""Summary of the check, on the screen and in `summary.json`."""

import json
from pathlib import Path

import torch

from benchmarks.report import describe, environment

from .processes import Outcome


def write_summary(
    file: Path, device: torch.device, outcomes: list[Outcome], seconds: float
) -> bool:
    """Write the summary and print it.

    Args:
        file (Path): JSON file to write.
        device (torch.device): Device on which the steps ran.
        outcomes (list[Outcome]): Outcomes of the steps.
        seconds (float): Duration of the whole check, in seconds.

    Returns:
        bool: Whether all steps passed.
    """
    passed = all(outcome.passed for outcome in outcomes)
    summary = dict(
        passed=passed,
        seconds=round(seconds, 1),
        **environment(device),
        steps={
            outcome.step.name: dict(
                passed=outcome.passed, seconds=round(outcome.seconds, 1), detail=outcome.detail
            )
            for outcome in outcomes
        },
    )
    file.write_text(json.dumps(summary, indent=2) + '\n')
    print(f'\n{describe(summary)}')
    for outcome in outcomes:
        state = 'passed' if outcome.passed else 'FAILED'
        print(f'  {state}  {outcome.seconds:5.0f} s  {outcome.step.name}: {outcome.step.about}')
    failed = sum(not outcome.passed for outcome in outcomes)
    verdict = 'all passed' if passed else f'{failed} of {len(outcomes)} failed'
    print(f'{verdict} in {seconds:.0f} s; {file}')
    return passed
