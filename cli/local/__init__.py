"""`nayer serve`: the whole service on one machine, as child processes."""
