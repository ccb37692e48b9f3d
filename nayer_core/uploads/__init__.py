"""Uploads of strangers: file formats, and the jail in which they are parsed."""
