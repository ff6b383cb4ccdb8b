"""Checks of data sets: quick ones before a run, and full ones that read every file."""
