"""What an answering Lotus may do wrong."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The faults of one role, all of them off unless stated."""

    hang: bool = False
    """Accept, and never answer."""
    refuse: bool = False
    """Listen no more; what is connected is cut off."""
    slow: float = 0.0
    """Answer these seconds late."""
    garbage: bool = False
    """Answer 200 with bytes that are no JSON."""
    html: bool = False
    """Answer 502 with a page, as a proxy does."""
    half: bool = False
    """Cut the connection amid the answer."""
    huge: int = 0
    """Answer with so many bytes."""
    unauthorized: bool = False
    """Know no token any more."""
    no_admin: bool = False
    """Take every token for one that may read."""
    absent: frozenset[str] = frozenset()
    """Methods that it does not have."""
    panic: frozenset[str] = frozenset()
    """Methods that panic."""
    only: frozenset[str] = frozenset()
    """The methods to which hang, slow, garbage, html, half and huge apply; all when empty."""

    def strike(self, methods: set[str]) -> bool:
        """Whether a request with these methods meets the faults of the answer."""
        return not self.only or bool(self.only & methods)
