"""The versions of the tables. `python -m migrations` brings a database to the newest version."""
