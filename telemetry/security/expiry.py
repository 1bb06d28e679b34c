"""When certificates end, as a person is told."""

from collections.abc import Iterator
from datetime import UTC, datetime

from telemetry.security.registry import Accounts, Served

NEAR_DAYS = 30
"""From then on `check` and `ls` say so."""

_DAY = 86_400


def format_day(unix: float) -> str:
    """The day of a moment: `2027-11-27`."""
    return datetime.fromtimestamp(unix, UTC).date().isoformat()


def is_near(expires: float, now: float) -> bool:
    """Whether something ends soon, or has ended."""
    return expires < now + NEAR_DAYS * _DAY


def near_ends(served: Served, accounts: Accounts, now: float) -> Iterator[str]:
    """One line for each certificate that ends soon: what it is, when, and what to do."""
    if served.server_expires and is_near(served.server_expires, now):
        yield f"the broker's certificate {_ends(served.server_expires, now)}: `telemetry broker renew`"
    if served.authority_expires and is_near(served.authority_expires, now):
        yield f"the authority that bundles trust {_ends(served.authority_expires, now)}: make all anew"
    for user, account in sorted(accounts.items()):
        if account.expires is not None and is_near(account.expires, now):
            yield f"the certificate of {user} {_ends(account.expires, now)}: `telemetry rotate`"


def _ends(expires: float, now: float) -> str:
    return f"{'ended' if expires < now else 'ends'} on {format_day(expires)}"
