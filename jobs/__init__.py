"""Jobs: their states, their rows in the database, and their files in the object store."""
