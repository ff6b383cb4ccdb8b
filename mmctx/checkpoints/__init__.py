"""Checkpoint files: read, chosen, compared with a model, and written whole or not at all."""
