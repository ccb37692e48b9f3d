"""The steps of a client, from a trained teacher to a student in use."""
