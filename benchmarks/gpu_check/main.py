"""Check that mmctx works on this machine's GPU: its op, backbones, trainings and torch.compile.

COCO_ROOT, K400_ROOT and IMAGENET_ROOT name real data to train on; the other data are rendered.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from mmctx.errors import UserError

from .processes import Outcome, Processes
from .sizes import Place
from .steps import DATA, NAMES, STEPS, Step, needs_data
from .summary import write_summary

CPUS_PER_JOB = 3


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--device',
        choices=['cuda', 'cpu'],
        default='cuda',
        help='cpu tries the check itself, with narrow networks and few small images (cuda)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/check_gpu'),
        help='folder for logs and summary.json, emptied first (work_dirs/check_gpu)',
    )
    parser.add_argument(
        '--steps', nargs='+', choices=NAMES, default=list(NAMES), metavar='STEP',
        help=f'some of {", ".join(NAMES)} (all)',
    )  # fmt: skip
    parser.add_argument(
        '--jobs', type=int, help=f'steps at a time (one for each {CPUS_PER_JOB} CPUs)'
    )
    return parser.parse_args()


def prepare(out):
    """Empty the folder if it was written by this tool."""
    if out.is_dir() and any(out.iterdir()):
        if not any(out.glob('*.log')):
            raise UserError(f'--out {out} holds something else than a check; name another folder')
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def run(steps: list[Step], place: Place, jobs: int) -> list[Outcome]:
    """Render the data for the steps, run the steps, and print how each of them ended."""
    outcomes = []
    for batch in ([DATA] if any(map(needs_data, steps)) else [], steps):
        for outcome in Processes(place, jobs).run(batch):
            state = 'passed' if outcome.passed else 'FAILED'
            print(
                f'{outcome.step.name}: {state} after {outcome.seconds:.0f} s, {outcome.detail}',
                flush=True,
            )
            outcomes.append(outcome)
    return outcomes


def main():
    args = parse_args()
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f'--jobs must be at least 1, not {args.jobs}')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('PyTorch sees no GPU here; --device cpu tries the check itself, small')
    # Ends the steps with this process, as they have sessions of their own.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    place = Place(args.device, args.out.resolve())
    prepare(place.out)
    jobs = args.jobs or max(1, os.cpu_count() // CPUS_PER_JOB)
    steps = [step for step in STEPS if step.name in args.steps]
    print(f'{len(steps)} steps, {min(jobs, len(steps))} at a time, into {args.out}', flush=True)
    try:
        outcomes = run(steps, place, jobs)
    except KeyboardInterrupt:
        sys.exit('interrupted')
    seconds = time.monotonic() - began
    passed = write_summary(args.out / 'summary.json', torch.device(args.device), outcomes, seconds)
    sys.exit(not passed)
