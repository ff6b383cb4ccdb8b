"""Data sets, registered on first use; each module imports the framework that it extends."""

SPLITS = ('train', 'val')
