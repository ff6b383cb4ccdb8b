"""Prediction on files: classify and detect in images, recognise actions in videos."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import load_checkpoint
from torch.utils.data import DataLoader, Dataset

from mmctx.checkpoints.fitting import Weights, check_fit, weight_shapes
from mmctx.checkpoints.reading import fetch, read_checkpoint, served_from_memory
from mmctx.checkpoints.stored_config import stored_config
from mmctx.cli.config import framework, load_config
from mmctx.cli.running import build_model
from mmctx.datasets.checks.imagenet import EXTENSIONS as LISTED_IMAGES
from mmctx.datasets.kinetics_lists import EXTENSIONS as VIDEOS
from mmctx.engine.data import is_of_decoder
from mmctx.errors import UserError, recognise
from mmctx.registry import bare_name, class_of

from .predictions import draw, entries_of

# mmpretrain's data sets pass over some that decoders can read.
IMAGES = (*LISTED_IMAGES, '.tiff', '.webp', '.gif', '.jp2')
Inputs = str | os.PathLike | Sequence[str | os.PathLike]


class Predictor:
    """A trained network of mmpretrain, mmdet or mmaction2, ready for files.

    Args:
        checkpoint (str | os.PathLike): Checkpoint file or http(s) address.
        config (str | os.PathLike | Config, optional): Config of the network. Defaults to None, the
            one that the checkpoint holds.
        classes (Sequence[str], optional): Name of each label. Defaults to None, the names in the
            checkpoint or else those of the config's data set; if neither has names, labels have
            none.
        device (str, optional): Device to run on. Defaults to None, an accelerator if there is one.

    Attributes:
        model (nn.Module): The network, in eval mode.
        kind (str): Framework of the network: `mmpretrain`, `mmdet` or `mmaction`.
        classes (tuple[str] | None): Name of each label.

    Raises:
        UserError: The checkpoint or the config cannot be used, or they do not fit together.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        config: str | os.PathLike | Config | None = None,
        classes: Sequence[str] | None = None,
        device: str | None = None,
    ):
        self.model: Any
        self.model, cfg, meta = load_network(checkpoint, config)
        self.kind = cfg.default_scope
        self.model.to(device or get_device())
        dataset = (cfg.get('test_dataloader') or {}).get('dataset')
        if not dataset or not dataset.get('pipeline'):
            raise UserError('the config has no test_dataloader.dataset.pipeline to load inputs by')
        with DefaultScope.overwrite_default_scope(self.kind):
            # Files have none, and those of panoptic sets need a package of their own.
            annotations = 'LoadAnnotations', 'LoadPanopticAnnotations'
            steps = [s for s in dataset.pipeline if bare_name(s['type']) not in annotations]
            self._pipeline = Compose(steps)
            self.classes = tuple(classes or _class_names(meta, dataset) or ()) or None

    def __call__(
        self,
        files: Sequence[str | os.PathLike],
        batch_size: int = 8,
        num_workers: int = 0,
        score_thr: float = 0.3,
        top_k: int = 5,
        pictures: Mapping[str, str | os.PathLike] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Predict the files one after the other.

        Args:
            files (Sequence[str | os.PathLike]): Paths of images or, for a recognizer, videos.
            batch_size (int): Number of files that go through the network at once. Defaults to 8.
            num_workers (int): Number of processes that load files. Defaults to 0, only this
                process.
            score_thr (float): Lowest score of a detected object. Defaults to 0.3.
            top_k (int): Number of classes for an image or video, the most likely ones. Defaults to
                5.
            pictures (Mapping, optional): Path of the picture to draw for a file, by the path of the
                file. Defaults to None, no pictures.

        Yields:
            dict: Prediction for a file: its `path` and, in the order of their scores, its `labels`,
            each a dict of `label`, `name` (None if classes have no names) and `score`. A detector
            gives `objects` instead, which also have a `box` (x1, y1, x2, y2 in pixels) and, with
            instance segmentation, a `mask` (COCO's RLE). A panoptic detector gives `segments`, the
            largest first, each a dict of `label`, `name`, `share` of the image's pixels and `mask`.
            A file that cannot be read has an `error` instead.
        """
        loader = DataLoader(
            _Files([str(file) for file in files], self.kind, self._pipeline),
            batch_size,
            num_workers=num_workers,
            collate_fn=list,
        )
        for batch in loader:
            readable = [data for _, data, _ in batch if data is not None]
            results = iter(self._run(readable))
            for path, data, error in batch:
                if data is None:
                    yield dict(path=path, error=error)
                    continue
                sample = next(results)
                entries = entries_of(self.kind, sample, self.classes, score_thr, top_k)
                if pictures and path in pictures:
                    draw(self.kind, path, sample, entries, self.classes, score_thr, pictures[path])
                yield dict(path=path, **entries)

    def load(self, path: str | os.PathLike) -> dict:
        """What the test pipeline makes of one file: `inputs` and `data_samples`.

        Raises:
            UserError: The file cannot be read.
        """
        _, data, error = _Files([str(path)], self.kind, self._pipeline)[0]
        if data is None:
            raise UserError(f'{path}: {error}')
        return data

    def _run(self, batch: list[dict]) -> list:
        if not batch:
            return []
        with torch.inference_mode(), DefaultScope.overwrite_default_scope(self.kind):
            return self.model.test_step(pseudo_collate(batch))


def load_network(
    checkpoint: str | os.PathLike, config: str | os.PathLike | Config | None = None
) -> tuple[nn.Module, Config, dict[str, Any]]:
    """Build the network of a config and load a checkpoint into it.

    Args:
        checkpoint (str | os.PathLike): Checkpoint file or http(s) address.
        config (str | os.PathLike | Config, optional): Config of the network. Defaults to None, the
            one that the checkpoint holds.

    Returns:
        tuple[nn.Module, Config, dict]: The network in eval mode on the CPU, its config, and what
        the checkpoint says of itself (`meta`).

    Raises:
        UserError: The checkpoint or the config cannot be used, or they do not fit together.
    """
    path = str(checkpoint)
    contents = read_checkpoint(fetch(path))
    if config is None:
        cfg = stored_config(contents, path)
    else:
        cfg = config if isinstance(config, Config) else load_config(str(config))
    framework(cfg)
    model = build_model(cfg)
    check_fit(model, Weights(path, weight_shapes(contents, path), complete=True))
    with served_from_memory({path: contents}):
        load_checkpoint(model, path, map_location='cpu')
    # mmpretrain's networks return nothing here.
    model.eval()
    return model, cfg, contents.get('meta') or {}


class _Files(Dataset):
    """Files, loaded by the test pipeline of a framework."""

    def __init__(self, paths: list[str], kind: str, pipeline: Compose):
        self.paths, self.kind, self.pipeline = paths, kind, pipeline

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, dict | None, str]:
        path = self.paths[index]
        source = dict(img_path=path, img_id=index)
        if self.kind == 'mmaction':
            source = dict(filename=path, label=-1, start_index=0, modality='RGB')
        try:
            return path, self.pipeline(source), ''
        except Exception as error:
            known = isinstance(error, OSError) or is_of_decoder(error) or recognise(error)
            if not known:
                raise
            return path, None, ' '.join(f'{type(error).__name__}: {error}'.split())


def predict(
    inputs: Inputs,
    checkpoint: str | os.PathLike,
    config: str | os.PathLike | Config | None = None,
    *,
    classes: Sequence[str] | None = None,
    device: str | None = None,
    **options,
) -> list[dict[str, Any]]:
    """Classify images, detect objects in them, or recognise actions in videos.

    Args:
        inputs (str | os.PathLike | Sequence): Paths of files, and of folders that are searched for
            files.
        checkpoint (str | os.PathLike): Checkpoint file or http(s) address.
        config (str | os.PathLike | Config, optional): Config of the network. Defaults to None, the
            one that the checkpoint holds.
        classes (Sequence[str], optional): Name of each label. Defaults to None, the names in the
            checkpoint or the config's data set.
        device (str, optional): Device to run on. Defaults to None, an accelerator if there is one.
        **options: Options of `Predictor.__call__`: `batch_size`, `num_workers`, `score_thr`,
            `top_k`.

    Returns:
        list[dict]: Prediction for each file, as `Predictor.__call__` yields it.

    Raises:
        UserError: A file does not exist, or checkpoint or config cannot be used.
    """
    predictor = Predictor(checkpoint, config, classes, device)
    return list(predictor(find_files(inputs, predictor.kind), **options))


def find_files(inputs: Inputs, kind: str) -> list[str]:
    """List the given files, and the files in the given folders in sorted order.

    The endings of a folder's other files are logged as a warning.

    Args:
        inputs (str | os.PathLike | Sequence): Paths of files and folders.
        kind (str): Framework of the network: `mmaction` takes videos, the others take images.

    Returns:
        list[str]: Paths of the files.

    Raises:
        UserError: A path does not exist, or a folder contains no such files.
    """
    endings = VIDEOS if kind == 'mmaction' else IMAGES
    found: list[str] = []
    single = isinstance(inputs, (str, os.PathLike))
    for given in [inputs] if single else inputs:  # type: ignore[list-item]
        path = Path(given)  # type: ignore[arg-type]
        if not path.exists():
            raise UserError(f'{path} does not exist')
        inside: Iterable[Path] = [path]
        if path.is_dir():
            files = sorted(p for p in path.rglob('*') if p.is_file() and p.name[0] != '.')
            inside = [p for p in files if p.name.lower().endswith(endings)]
            if not inside:
                raise UserError(f'{path} holds no files that end in {", ".join(endings)}')
            others = Counter(
                p.suffix.lower() for p in files if not p.name.lower().endswith(endings)
            )
            if others:
                counts = ', '.join(
                    f'{others[end]} {end or "without one"}' for end in sorted(others)
                )
                print_log(
                    f'{path} holds files of other endings, which are passed over: {counts}',
                    'current',
                    logging.WARNING,
                )
        found += map(str, inside)
    return found


def _class_names(meta: dict, dataset: dict) -> Sequence[str] | None:
    """Class names of a checkpoint or, if it has none, of the config's data set."""
    stated = meta.get('dataset_meta') or {}
    cls = class_of(dataset, DATASETS)
    for source in (stated, dataset.get('metainfo') or {}, getattr(cls, 'METAINFO', {})):
        names = source.get('classes') or source.get('CLASSES')
        if names:
            return names
    return None
