"""The log of a part that runs: one line an event, to standard error."""

import logging
import sys


def start_logging(part: str) -> None:
    """Let `part` log from now on, quietly where all is well."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"%(asctime)s {part} %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    # Its warning of a job that still runs is our missed deadline, told once and in our words.
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
