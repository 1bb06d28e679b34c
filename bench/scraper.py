"""`python -m bench.scraper HOST:PORT` scrapes as Prometheus does: every 10 s, compressed, on one connection."""

import http.client
import sys
import time

_INTERVAL = 10.0
_HEADERS = {
    "User-Agent": "Prometheus/2.42.0",
    "Accept": "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "X-Prometheus-Scrape-Timeout-Seconds": "10",
}


def _scrape(connection: http.client.HTTPConnection) -> None:
    try:
        connection.request("GET", "/metrics", headers=_HEADERS)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException) as error:
        print(f"{connection.host}: {error}", flush=True)
        connection.close()


def _main(where: str) -> None:
    connection = http.client.HTTPConnection(where, timeout=_INTERVAL)
    while True:
        _scrape(connection)
        time.sleep(_INTERVAL - time.monotonic() % _INTERVAL)


if __name__ == "__main__":
    _main(sys.argv[1])
