"""What a client of the service does, from a trained teacher to a student in use."""
