"""Fixtures that every room's tests may ask for; nothing starts before a test asks."""

import os
import signal

# A suite that runs in the background is started with Ctrl-C ignored, and so would be every process
# that a test starts and then interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test may wait for a hub that cannot be reached; set before any library reads it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

pytest_plugins = ["tests.support.services", "tests.tiers"]
