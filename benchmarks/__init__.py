"""What is measured, and how; results with seeds, hardware and command lie in `results/`."""
