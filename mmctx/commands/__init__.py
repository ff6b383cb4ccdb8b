"""Commands of `mmctx COMMAND`, each a module of its name with a function `main`."""

COMMANDS = {
    'train': 'train a model from a config file',
    'test': 'test a checkpoint: metrics, pictures, predictions',
    'predict': 'classify, detect or recognise what is in images or videos',
    'export': 'write a network as ONNX, or as a program of torch.export',
    'run': "run a tool of mmdet, mmpretrain, mmaction2 or mmctx with mmctx's remedies",
}

__all__ = ['COMMANDS']
