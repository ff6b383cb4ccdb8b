"""Data sets, registered on first use; each module brings the framework that it extends."""
