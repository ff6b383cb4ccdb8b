"""Checkpoint files: read, chosen, compared with a model, and written completely or not at all."""
