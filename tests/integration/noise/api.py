"""The API, with one method more."""

from api.main import create_app
from tests.support import noise_method  # noqa: F401 - adds its entry

__all__ = ["create_app"]
