"""Architectures: our own families, the libraries' and what tells one state dict from another."""
