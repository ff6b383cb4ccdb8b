"""Data of the test of mmengine's strategies: random images of twelve classes."""

import torch
from mmengine.registry import DATASETS
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset


@DATASETS.register_module()
class ToyImages(Dataset):
    """Sixteen images of 64×64 pixels."""

    metainfo = dict(classes=[str(label) for label in range(12)])

    def __len__(self):
        return 16

    def __getitem__(self, index):
        image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(index))
        return dict(inputs=image * 255, data_samples=DataSample().set_gt_label(index % 12))
