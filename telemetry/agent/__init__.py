"""What runs on each host: sources are sampled, changes flagged, and the flagged fields published."""

import os

# Read when APScheduler imports zoneinfo, which else loads all that this Python was built with, 0.6 MB, to find a path.
# The agent knows no zone but UTC.
os.environ.setdefault("PYTHONTZPATH", "/usr/share/zoneinfo")
