"""Preprocessing of batches on the device of the model."""

from .crop_preprocessor import CropPreprocessor

__all__ = ['CropPreprocessor']
