"""Whether the memory of a long training stays flat."""
