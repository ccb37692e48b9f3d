"""Fixtures that every room's tests may ask for; nothing starts before a test asks."""

import os

# No test may wait for a hub that cannot be reached; set before any library reads it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

pytest_plugins = ["tests.support.services"]
