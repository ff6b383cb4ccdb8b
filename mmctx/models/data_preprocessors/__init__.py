"""What is done to a batch on the model's device before the backbone sees it."""

from .crop_preprocessor import CropPreprocessor

__all__ = ['CropPreprocessor']
