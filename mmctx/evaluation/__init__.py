"""Metrics, imported on first use; each module imports the framework that it extends."""
