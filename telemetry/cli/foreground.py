"""How a command that runs in the foreground is stopped."""

import signal


class Stop:
    """Whether Ctrl-C or SIGTERM came, or the terminal was closed."""

    def __init__(self) -> None:
        self.is_asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup has SIGHUP ignored, and means it.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.is_asked = True
