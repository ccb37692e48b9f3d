"""Benchmarks; `results/` has their results with seeds, hardware and command."""
