"""What a job is, the states it may pass, and where it and its files are kept."""
