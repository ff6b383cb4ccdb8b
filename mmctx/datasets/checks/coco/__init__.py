"""Checks of a data set in COCO's format: quick before a run, full on its own."""
