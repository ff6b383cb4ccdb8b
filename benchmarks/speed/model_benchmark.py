"""Speed and memory of a configured network and its vanilla counterpart, in several modes."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn as nn
from mmengine.config import Config

from benchmarks.text import FAILED, NOT_RUN, OK
from benchmarks.timing import Call, Times, peak_memory, time_in_turn, write_trace

from .model_check import ReferenceResults
from .networks import Mode, Network

MIN_STEPS = 5
MOST_SKIPPED_STEPS = 16
# Names of the timed quantities.
THROUGHPUT, LATENCY, TRAINING = 'batch', 'single image', 'training step'


class Entry:
    """A network in a mode, and its results.

    Args:
        name (str): Name of the config.
        network (Network): The network in its mode.

    Attributes:
        row (dict): Results for the table and the JSON file.
        calls (dict[str, Call]): Calls to time, by quantity.
    """

    def __init__(self, name: str, network: Network):
        self.network = network
        self.calls: dict[str, Call] = {}
        mode = '+'.join(network.mode) or 'eager'
        self.row = dict(config=name, mode=mode, status=OK, note='', errors={}, peak_bytes={})

    def attempt(self, function: Callable[[], object]) -> bool:
        """Call a function; if it cannot run here, note the reason and return False.

        With `torch.compile` every exception counts, otherwise only a lack of memory.
        """
        expected = Exception if 'compile' in self.network.mode else torch.OutOfMemoryError
        try:
            function()
        except expected as error:
            first_line = str(error).strip().partition('\n')[0]
            self.row['note'] = f'{type(error).__name__}: {first_line}'
            return False
        return True

    def check(self, reference: ReferenceResults) -> None:
        """Compare the network with the reference, and set status, note and errors."""

        def check():
            self.row['errors'], self.row['note'] = reference.check(self.network)

        if not self.attempt(check):
            self.row['status'] = NOT_RUN
        elif self.row['note']:
            self.row['status'] = FAILED

    def prepare_inference(self, batch_size: int) -> None:
        """Run the calls to time once, and measure their memory."""
        held = _bytes(self.network.model.state_dict().values())
        for quantity, size in ((THROUGHPUT, batch_size), (LATENCY, 1)):
            run = self.network.inference(size)

            def measure(run=run, quantity=quantity):
                peak = peak_memory(run, self.network.device)
                self.row['peak_bytes'][quantity] = None if peak is None else held + peak

            if self.attempt(measure):
                self.calls[quantity] = Call(lambda _, run=run: run())

    def prepare_training(self, batch_size: int) -> None:
        """Run two training steps, and measure the memory of the second, with the optimizer's."""
        model = self.network.model
        if batch_size == 1 and any(isinstance(m, nn.BatchNorm1d) for m in model.modules()):
            self.row['note'] = 'no training step: its BatchNorm1d needs a batch of two at least'
            return
        made: list[Callable] = []
        losses: list[torch.Tensor] = []

        def measure():
            step, wrapper = self.network.training_step(batch_size)
            # Steps are skipped while the loss scale is too high, and the optimizer has no state.
            for _ in range(MOST_SKIPPED_STEPS):
                losses.append(step())
                if wrapper.optimizer.state:
                    break
            held = _bytes(model.state_dict().values())
            for state in wrapper.optimizer.state.values():
                held += _bytes(v for v in state.values() if isinstance(v, torch.Tensor))
            peak = peak_memory(step, self.network.device)
            self.row['peak_bytes'][TRAINING] = None if peak is None else held + peak
            made.append(step)

        if not self.attempt(measure):
            return
        if not all(map(torch.isfinite, losses)):
            self.row.update(status=FAILED, note='the loss of a training step is not finite')
            return
        self.calls[TRAINING] = Call(lambda _: made[0]())


def _bytes(tensors) -> int:
    return sum(t.nbytes for t in tensors)


def benchmark_networks(
    networks: dict[str, tuple[nn.Module, Config]],
    modes: list[Mode],
    shape: tuple[int, int],
    batch_size: int,
    device: torch.device,
    seconds: float,
    train: bool = True,
    progress: Callable[[str], None] = print,
    traces: Path | None = None,
) -> list[dict]:
    """Check networks in modes, then time those with correct results in turn.

    Args:
        networks (dict): Models and their configs by name. If there are two, ratios are relative to
            the second, the vanilla one.
        modes (list[Mode]): Modes as `parse_mode` returns them.
        shape (tuple[int, int]): Height and width of the images, in pixels.
        batch_size (int): Number of images in a batch, for throughput and training.
        device (torch.device): Device on which the networks run.
        seconds (float): Time to spend on each quantity of each network and mode, in seconds.
        train (bool): Whether to time training steps as well. Defaults to True.
        progress (Callable): Function that shows a line of progress. Defaults to `print`.
        traces (Path, optional): Folder for a trace of each network, mode and quantity, made after
            they are timed. Defaults to None, no traces.

    Returns:
        list[dict]: A row for each network and mode.
    """
    entries = []
    for name, (model, cfg) in networks.items():
        reference = ReferenceResults(Network(model, cfg, (), shape, device))
        for mode in modes:
            entry = Entry(name, Network(model, cfg, mode, shape, device))
            progress(f'{name}, {entry.row["mode"]}: checking')
            entry.check(reference)
            entries.append(entry)
    right = [entry for entry in entries if entry.row['status'] == OK]
    for entry in right:
        entry.prepare_inference(batch_size)
    progress(f'timing {len(right)} of {len(entries)}')
    for quantity, runs in ((THROUGHPUT, 1), (LATENCY, MIN_STEPS)):
        _time(right, quantity, device, seconds, runs)
        _trace(right, quantity, device, traces)
    if train:
        for entry in right:
            progress(f'{entry.row["config"]}, {entry.row["mode"]}: first training steps')
            entry.prepare_training(batch_size)
        progress('timing training steps')
        _time(right, TRAINING, device, seconds)
        _trace(right, TRAINING, device, traces)
    return _with_ratios([entry.row for entry in entries], list(networks), batch_size)


def _time(entries: list[Entry], quantity: str, device, seconds: float, min_runs: int = 3) -> None:
    calls = {i: e.calls[quantity] for i, e in enumerate(entries) if quantity in e.calls}
    times: dict[int, Times] = time_in_turn(calls, device, seconds, max(min_runs, 3))
    for index, spent in times.items():
        entries[index].row[quantity] = spent.in_seconds()


def _trace(entries: list[Entry], quantity: str, device, folder: Path | None) -> None:
    for entry in entries if folder else ():
        if quantity in entry.calls:
            name = f'{entry.row["config"]} {entry.row["mode"]} {quantity}.json.gz'
            write_trace(entry.calls[quantity], device, folder / name.replace(' ', '_'))


def _with_ratios(rows: list[dict], names: list[str], batch_size: int) -> list[dict]:
    """Add images per second, and ratios of times to those of the vanilla network in that mode."""
    vanilla = {row['mode']: row for row in rows if [row['config']] == names[1:]}
    for row in rows:
        if THROUGHPUT in row:
            row['images_per_second'] = batch_size / row[THROUGHPUT]['median_s']
        other = vanilla.get(row['mode'])
        if other is None or row is other:
            continue
        row['vanilla'] = names[1]
        row['ratios'] = {
            quantity: row[quantity]['median_s'] / other[quantity]['median_s']
            for quantity in (THROUGHPUT, LATENCY, TRAINING)
            if quantity in row and quantity in other
        }
        row['memory_ratios'] = {
            quantity: peak / other['peak_bytes'][quantity]
            for quantity, peak in row['peak_bytes'].items()
            if peak and other['peak_bytes'].get(quantity)
        }
    return rows
