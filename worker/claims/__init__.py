"""Holding a job: claim it, keep the lease, run the core on it, and end the claim with a correct state."""
