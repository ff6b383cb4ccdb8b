"""Measurements of mmctx, next to their results: speed, memory, the paper's tables and a study."""
