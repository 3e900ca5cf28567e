"""`make bench` and `python -m bench`: whole jobs beside the classic way; see bench.cpu_compare."""

import sys

from bench.cpu_compare import main

if __name__ == "__main__":
    sys.exit(main())
