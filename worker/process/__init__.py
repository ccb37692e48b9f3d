"""Child processes of a worker: confined, watched, and ended with their process group."""
