"""`python -m migrations`: bring the database of NAYER_DATABASE_URL to the newest version.

Works where only the wheel is installed, without `alembic.ini` beside it.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config


def main() -> None:
    """Upgrade to head; harmless when there is nothing to do."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")


if __name__ == "__main__":
    main()
