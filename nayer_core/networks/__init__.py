"""Architectures: our own families and those of libraries, and the recognition of state dicts."""
