"""Measurement of the memory of a long training."""
