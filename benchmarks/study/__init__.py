"""The study: the same recipe with and without context, on data that minutes are enough for."""
