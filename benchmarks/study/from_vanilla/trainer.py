"""One training whose whole step is a CUDA graph; on a CPU the same step runs as it is."""

import gc
from contextlib import ExitStack, contextmanager, nullcontext

import torch
import torch.nn as nn
from torch import Tensor

from mmctx.engine.optimizers.context_groups import kind_of

from .controls import priors_of_another_image, tell
from .draws import crop, cut_mix, draw_schedule, normalize
from .images import Images
from .networks import forward, loss_of

WARM_UP = 0.08
# Before a capture: kernels are compiled and chosen, and gradients get their places.
SETTLING_STEPS = 3


class Trainer:
    """A network, its optimizer and the table of all that is random about its training.

    Each has a stream of its own, so that trainings of several seeds share a GPU that none of them
    fills.

    Args:
        network (nn.Module): On its device.
        optimizer (torch.optim.Optimizer): Of its parameters.
        images (Images): The training set, on the same device.
        order (Tensor): Numbers of the images of each step, (steps, B).
        crops (Tensor): Their crops, (steps, B, 2, 3).
        boxes (Tensor): What they take from each other, (steps, 4), see `draw_boxes`.
        control (str): `other` for priors of another image, or ''. Defaults to ''.
        waiting (float): Share of the steps in which only classifying parameters learn. Defaults
            to 0.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        images: Images,
        order: Tensor,
        crops: Tensor,
        boxes: Tensor,
        control: str = '',
        waiting: float = 0.0,
    ):
        self.device = images.pixels.device
        self.network, self.optimizer, self.images = network, optimizer, images
        self.order, self.crops, self.boxes = (t.to(self.device) for t in (order, crops, boxes))
        self.control, self.waiting = control, waiting
        self.on_gpu = self.device.type == 'cuda'
        self.schedule = draw_schedule(len(order), WARM_UP, waiting).to(self.device)
        self.at = torch.zeros(1, dtype=torch.long, device=self.device)
        # Sum of the loss, images right, images seen.
        self.sums = torch.zeros(3, device=self.device)
        self.rates = self._own_rates()
        self.stream = torch.cuda.Stream() if self.on_gpu else None
        self.graph: torch.cuda.CUDAGraph | None = None
        if self.on_gpu:
            self._capture()

    def run(self, steps: int) -> None:
        """Queue so many steps."""
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        """Queue one step."""
        with self._own_stream():
            if self.graph is None:
                self._step()
            else:
                self.graph.replay()

    def take_sums(self) -> tuple[float, float]:
        """Mean loss and top-1 in percent on the training images since the last call."""
        with self._own_stream():
            loss, right, seen = self.sums.tolist()
            self.sums.zero_()
        return loss / max(seen, 1), 100 * right / max(seen, 1)

    @contextmanager
    def _own_stream(self):
        with torch.cuda.stream(self.stream) if self.on_gpu else nullcontext():
            yield

    def _own_rates(self) -> list[tuple[dict, float, int]]:
        """Groups with their rates and columns of the schedule."""
        names = {id(p): name for name, p in self.network.named_parameters()}
        found = []
        for group in self.optimizer.param_groups:
            waits = [kind_of(names[id(p)]) != 'classifying' for p in group['params']]
            if self.waiting and any(waits) != all(waits):
                raise RuntimeError('parameters that wait need a rate of their own')
            found.append((group, group['lr'], int(all(waits))))
            if self.on_gpu:
                group['lr'] = torch.tensor(float(group['lr']), device=self.device)
        return found

    def _step(self) -> None:
        with torch.no_grad():
            factors = self.schedule.index_select(0, self.at)[0]
            for group, rate, column in self.rates:
                if self.on_gpu:
                    group['lr'].copy_(factors[column] * rate)
                else:
                    group['lr'] = rate * factors[column].item()
            chosen = self.order.index_select(0, self.at)[0]
            target = self.images.labels.index_select(0, chosen)
            pixels = self.images.pixels.index_select(0, chosen)
            cropped = crop(pixels, self.crops.index_select(0, self.at)[0])
            mixed, target = cut_mix(cropped, target, self.boxes.index_select(0, self.at)[0])
            images = normalize(mixed)
        tell(self.network, target)
        with ExitStack() as stack:
            if self.control == 'other':
                stack.enter_context(priors_of_another_image(self.network))
            stack.enter_context(mixed_precision(self.device))
            logits = forward(self.network, images)
            loss = loss_of(self.network, logits, target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            right = (logits[-1].argmax(1) == target.argmax(1)).sum()
            self.sums += torch.stack(
                [loss * len(target), right, torch.full_like(loss, len(target))]
            ).float()
            self.at += 1

    def _capture(self) -> None:
        start = {name: value.clone() for name, value in self.network.state_dict().items()}
        torch.cuda.synchronize()
        with torch.cuda.stream(self.stream):
            for _ in range(SETTLING_STEPS):
                self._step()
            torch.cuda.synchronize()
            self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            self._step()
        self.graph = graph
        torch.cuda.synchronize()
        self._restart(start)

    def _restart(self, start: dict[str, Tensor]) -> None:
        """Forget the steps before the capture."""
        self.network.load_state_dict(start)
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        self.at.zero_()
        self.sums.zero_()
        if self.on_gpu:
            torch.cuda.synchronize()


def mixed_precision(device: torch.device):
    """bfloat16 on a GPU, nothing elsewhere."""
    if device.type != 'cuda':
        return nullcontext()
    # A cached copy of a weight would not follow it from one replay to the next.
    return torch.autocast('cuda', torch.bfloat16, cache_enabled=False)


def run_together(trainers: list[Trainer], steps: int) -> None:
    """Run steps of several trainings side by side, and wait for the last."""
    for _ in range(steps):
        for trainer in trainers:
            trainer.step()
    if trainers[0].on_gpu:
        torch.cuda.synchronize()


def release_memory() -> None:
    """Free what trainings that are no longer referred to have held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
