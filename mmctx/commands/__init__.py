"""Commands of `mmctx COMMAND`, each a module of its name with a function `main`."""

COMMANDS = {
    'train': 'train a model from a config file',
    'test': 'test a checkpoint: metrics, pictures, predictions',
    'predict': 'classify, detect or recognise what is in images or videos',
    'export': 'write a network as ONNX, or as a program of torch.export',
    'see': 'draw what the context did: cascade, sampling points, kernels, maps',
    'app': 'serve a local page that shows what the context does with a picture',
    'run': "run a tool of mmdet, mmpretrain, mmaction2 or mmctx with mmctx's remedies",
}

__all__ = ['COMMANDS']
