"""The workers: they claim jobs, run the core in child processes, and keep rows and files consistent."""
