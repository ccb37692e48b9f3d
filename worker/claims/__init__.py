"""Holding a job: taking it, keeping the lease, running the core on it, and leaving it in a true state."""
