"""What `mmctx COMMAND` runs, each in a module of its name with a `main`."""

COMMANDS = {
    'train': 'train a model from a config file',
    'test': 'test a checkpoint: metrics, pictures, predictions',
    'predict': 'classify, detect or recognise what is in images or videos',
    'see': 'draw what the context did: cascade, sampling points, kernels, maps',
    'app': 'serve a local page that shows what the context does with a picture',
    'run': "run a tool of mmdet, mmpretrain, mmaction2 or mmctx with mmctx's remedies",
}

__all__ = ['COMMANDS']
