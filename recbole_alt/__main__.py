"""``python -m recbole_alt``: the command ``recbole-alt``."""

import sys

from recbole_alt.cli import main

if __name__ == "__main__":
    sys.exit(main())
