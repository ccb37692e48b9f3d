"""The API, with one method more: `python -m tests.integration.noise.api --port N`."""

import sys

from api.__main__ import main
from tests.support import noise_method  # noqa: F401 - adds its entry

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
