"""`python -m bench.join URL MINER RECORDS` follows a miner, and prints the seconds until it holds so many records."""

import sys
import time

from telemetry.client import Fleet


def _main(url: str, miner: str, records: int) -> None:
    began = time.monotonic()
    with Fleet(url, miner=miner) as fleet:
        # Each look at the records is one at all of them.
        while fleet.snapshots < records or len(fleet.records) < records:
            fleet.poll(1.0)
        print(time.monotonic() - began)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
