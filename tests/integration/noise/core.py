"""The core program, with one method more."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from nayer_core.__main__ import _claim_stdout, main
from tests.support import noise_method  # noqa: F401 - adds its entry

sys.exit(main(sys.argv[1:], _claim_stdout()))
