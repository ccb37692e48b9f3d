"""The `nayer` command: the service on one machine, and its client."""
