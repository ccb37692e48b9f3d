"""The history of the tables. `python -m migrations` brings a database to its newest version."""
