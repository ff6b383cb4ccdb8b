"""Work-arounds for faults of the packages that mmctx builds on, each doing nothing unless needed."""


def install():
    pass
