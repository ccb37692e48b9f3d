"""One file for each version; a released file does not change."""
