"""`python -m bench.named ARGUMENTS` is `telemetry ARGUMENTS`, its threads named for the kernel too.

/proc then tells them apart, which Python 3.11 does not see to. Nothing else differs.
"""

import ctypes
import sys
import threading

from telemetry.cli import main

_PR_SET_NAME = 15
_libc = ctypes.CDLL(None)


def _name_thread(*_: object) -> None:
    sys.setprofile(None)
    _libc.prctl(_PR_SET_NAME, threading.current_thread().name.encode())


if __name__ == "__main__":
    threading.setprofile(_name_thread)  # called once, as a thread begins
    sys.exit(main())
