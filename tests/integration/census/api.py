"""The API, with one kind of job more: `python -m tests.integration.census.api --port N`."""

import sys

from api.__main__ import main
from tests.support import census_kind  # noqa: F401 - adds its entry

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
