"""Child processes of a worker: confined, watched, ended with everything they started."""
