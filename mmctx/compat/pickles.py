"""Reading of pickled annotations, proposals and skeletons without running code in them.

mmengine's `load` unpickles files by their ending, and a pickle can call any function. Data sets and
tests store plain values, arrays of numbers, tensors, and OpenMMLab's own containers of these in
pickles, so everything else is refused.
"""

import pickle
from importlib import import_module
from io import BytesIO

import numpy as np
import torch
from mmengine.fileio.handlers import PickleHandler

from mmctx.errors import UserError

from . import checkpoint


def _encode(text, encoding):
    return text.encode('latin1')


def _frombuffer(buffer, dtype, shape, order, axis_order=None):
    if not isinstance(dtype, checkpoint._Dtype) or axis_order is not None:
        raise pickle.UnpicklingError('only arrays of numbers are allowed in a data file')
    return np.frombuffer(bytes(buffer), dtype.dtype).reshape(shape, order=order)


def _storage(data):
    with checkpoint.weights_only():
        return torch.load(BytesIO(data), weights_only=True)


def _tensor(*args):
    return torch._utils._rebuild_tensor_v2(*args)


# Protocol 2 writes sets, complex numbers and bytes as calls.
ALLOWED = {
    ('builtins', 'set'): set,
    ('builtins', 'frozenset'): frozenset,
    ('builtins', 'complex'): complex,
    ('builtins', 'bytes'): checkpoint._empty_bytes,
    ('_codecs', 'encode'): _encode,
    ('collections', 'OrderedDict'): dict,
    ('numpy', 'dtype'): checkpoint._Dtype,
    ('numpy', 'ndarray'): checkpoint._Array,
    ('torch.storage', '_load_from_bytes'): _storage,
    ('torch._utils', '_rebuild_tensor_v2'): _tensor,
    ('torch', 'device'): torch.device,
}
# Containers of annotations, predictions and proposals; mmdet's `DumpProposals` writes the first.
CONTAINERS = {
    'mmengine.structures.instance_data': ('InstanceData',),
    'mmengine.structures.pixel_data': ('PixelData',),
    'mmengine.structures.label_data': ('LabelData',),
    'mmengine.structures.base_data_element': ('BaseDataElement',),
    'mmdet.structures.det_data_sample': ('DetDataSample',),
    'mmdet.structures.bbox.horizontal_boxes': ('HorizontalBoxes',),
    'mmdet.structures.mask.structures': ('BitmapMasks', 'PolygonMasks'),
    'mmpretrain.structures.data_sample': ('DataSample',),
    'mmaction.structures.action_data_sample': ('ActionDataSample',),
}
for _core in ('numpy.core', 'numpy._core'):
    ALLOWED[f'{_core}.multiarray', '_reconstruct'] = checkpoint._reconstruct
    ALLOWED[f'{_core}.multiarray', 'scalar'] = checkpoint._scalar
    ALLOWED[f'{_core}.numeric', '_frombuffer'] = _frombuffer


class RefusedPickle(UserError, pickle.UnpicklingError):
    """A file that contains more than data."""


def _container(cls):
    """Stand-in for a class, as a file could change the class itself."""

    class Container:
        def __new__(cls_, *args):
            return object.__new__(cls)

        def __setstate__(self, state):
            raise pickle.UnpicklingError('only objects of this class have a state')

    return Container


class DataUnpickler(pickle.Unpickler):
    """Unpickles plain values, arrays of numbers and containers, and refuses everything else."""

    def find_class(self, module, name):
        """Find the stand-in for a global."""
        # Protocols before 3 use the name of Python 2.
        module = module.replace('__builtin__', 'builtins')
        if name in CONTAINERS.get(module, ()):
            return _container(getattr(import_module(module), name))
        if (module, name) not in ALLOWED:
            raise RefusedPickle(
                f'the file is refused: besides data it holds {module}.{name}, which reading would '
                'run; if you trust it, save its data as JSON'
            )
        return ALLOWED[module, name]


def install():
    """Let mmengine read pickle files with :class:`DataUnpickler`."""

    def load_from_fileobj(self, file, **kwargs):
        return DataUnpickler(file, **kwargs).load()

    PickleHandler.load_from_fileobj = load_from_fileobj
