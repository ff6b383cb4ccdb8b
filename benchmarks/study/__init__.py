"""The study: the same recipe with and without context, on data that are learned in minutes."""
