"""`python -m bench.page ADDRESS MINER SECONDS` follows a miner as a page does, and prints how late its changes are.

As JSON: of each message that came in so many seconds, the age of the newest value in it, s: median, p99, greatest.
"""

import sys
import time

import orjson
from websockets.sync.client import connect

_LARGEST = 1 << 26


def _main(address: str, miner: str, seconds: float) -> None:
    ages: list[float] = []
    with connect(f"ws://{address}/api/live", max_size=_LARGEST) as socket:
        socket.send(orjson.dumps({"subscribe": miner}).decode())
        end = None
        while end is None or time.monotonic() < end:
            message = orjson.loads(socket.recv())
            if "change" in message:
                # The snapshot that comes first takes a while.
                end = end or time.monotonic() + seconds
                ages.append(time.time() - max(record["_time"] for record in message["records"]) / 1000)
    ages.sort()
    found = {"median": ages[len(ages) // 2], "p99": ages[len(ages) * 99 // 100], "greatest": ages[-1]}
    sys.stdout.write(orjson.dumps(found).decode())


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
