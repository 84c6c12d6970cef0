"""`python -m skillweave`: the same as the command `skillweave`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
