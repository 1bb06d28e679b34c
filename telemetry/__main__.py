"""`python -m telemetry` is the console script `telemetry`."""

import sys

from telemetry.cli import main

if __name__ == "__main__":
    sys.exit(main())
