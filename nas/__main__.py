"""`python -m nas`, which is `nas`."""

import sys

from nas.cli import main

if __name__ == "__main__":
    sys.exit(main())
