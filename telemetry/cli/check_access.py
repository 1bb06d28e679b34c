"""What `telemetry check` looks at of the broker: TLS, credentials, and whether what is forbidden is refused."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from telemetry.access import Role, User, rules_of
from telemetry.cli.exchange import connect, follow
from telemetry.cli.findings import Finding
from telemetry.cli.options import Chosen
from telemetry.cli.tables import count_of
from telemetry.errors import TelemetryError
from telemetry.mqtt import BrokerUrl
from telemetry.probe import look_at
from telemetry.processes import is_loopback
from telemetry.security.expiry import format_day, is_near, near_ends
from telemetry.security.refusals import CHECK, REFUSED
from telemetry.security.registry import Registry
from telemetry.security.reload import holder
from telemetry.stores.reading import is_served
from telemetry.topics import AgentKey, RecordKey, Topics


def look_at_broker(choice: Chosen, key: RecordKey, bundle: str | None) -> Iterator[Finding]:
    """The connection first: without it there is nothing else to look at."""
    if bundle is not None and Path(bundle).stat().st_mode & 0o077:
        yield Finding("warn", "bundle", f"{bundle}: others on this machine can read it: chmod 600 {bundle}")
    try:
        url = choice.broker
        user = User.parse(url.username or "")
        has_place = user is not None and user.role in {Role.AGENT, Role.AGGREGATOR}
        is_taken = user is not None and has_place and _is_taken(choice, user)
        tried = [] if is_taken else _forbidden(user, key, choice.topics)
        seen = look_at(url, tried)
        if not has_place:
            with follow(choice, key) as fleet:
                connect(fleet)
    except TelemetryError as error:
        yield Finding("fail", "broker", str(error))
        return
    told = "reached" if is_taken else "connected" if has_place else "connected and subscribed"
    yield Finding("ok", "broker", f"{told}: {url}")
    yield _tls(url, seen.expires)
    yield from _own_certificate(url)
    if is_taken:
        yield Finding("ok", "access", f"{user} runs here with these credentials; not tried beside it")
    else:
        yield _access(url, tried, seen.refused)


def _is_taken(choice: Chosen, user: User) -> bool:
    """Whether who has the user runs here: to connect with it would put that one out."""
    if user.role is Role.AGGREGATOR:
        return is_served(choice.database)
    return holder(choice.state / f"{user}.spool" / "lock") is not None


def _forbidden(user: User | None, key: RecordKey, topics: Topics) -> list[str]:
    """What a user may not write, so named that it is nobody's and does no harm where it can."""
    name = f"{CHECK}.{secrets.token_hex(4)}"
    other = AgentKey(key.minerId, name)
    tried = (
        f"{topics.control}/{name}", topics.aggregator(name), topics.request(other), topics.agent_health(other),
        topics.presence(other.record), topics.snapshot(other.record),
    )  # fmt: skip
    rules = rules_of(user, topics) if user is not None else ()
    return [topic for topic in tried if not any(rule.allows("write", topic) for rule in rules)]


def look_at_users(choice: Chosen) -> Iterator[Finding]:
    """What the machine of the broker knows of its users."""
    registry = Registry(choice.data)
    if not registry.exists or not registry.is_readable:
        return
    accounts, served = registry.accounts(), registry.served()
    ends = list(near_ends(served, accounts, time.time()))
    for end in ends:
        yield Finding("warn", "expiry", end)
    if not ends:
        yield Finding("ok", "users", f"{count_of(len(accounts), 'user')}; no certificate ends soon")
    yield _refused(registry.broker / REFUSED)


def _refused(path: Path) -> Finding:
    try:
        kept = orjson.loads(path.read_text())
    except (OSError, orjson.JSONDecodeError):
        return Finding("ok", "refused", "nothing is known: the broker has not run yet")
    if not kept["total"]:
        return Finding("ok", "refused", "nothing since the broker started")
    most, number = max(kept["acts"].items(), key=lambda one: one[1])
    text = f"{count_of(kept['total'], 'act')} since the broker started, most often ({number}): {most}; see its log"
    return Finding("warn", "refused", text)


def _tls(url: BrokerUrl, expires: float | None) -> Finding:
    if not url.tls:
        if is_loopback(url.host):
            return Finding("ok", "tls", "none, on this machine")
        return Finding("warn", "tls", f"none: whoever is on the way to {url.host} reads and writes all: use mqtts://")
    if expires is None:
        return Finding("ok", "tls", "verified")
    text = f"verified, the broker's certificate ends on {format_day(expires)}"
    if is_near(expires, time.time()):
        return Finding("warn", "tls", f"{text}: `telemetry broker renew` on its machine")
    return Finding("ok", "tls", text)


def _own_certificate(url: BrokerUrl) -> Iterator[Finding]:
    if not url.trust.cert:
        return
    from telemetry.security.certificates import expiry  # noqa: PLC0415  # loads cryptography

    pem = url.trust.cert if "-----BEGIN" in url.trust.cert else Path(url.trust.cert).read_text()
    expires = expiry(pem, "tls.cert")
    text = f"ours ends on {format_day(expires)}"
    near = is_near(expires, time.time())
    yield Finding("warn" if near else "ok", "certificate", f"{text}: `telemetry rotate`" if near else text)


def _access(url: BrokerUrl, tried: list[str], refused: dict[str, bool] | None) -> Finding:
    who = url.username or "nobody"
    if refused is None:
        return Finding("warn", "access", f"{who}: not tried, the broker does not speak MQTT 5")
    allowed = [topic for topic in tried if not refused[topic]]
    if not allowed:
        return Finding("ok", "access", f"{who}: what is not its own is refused ({len(tried)} topics tried)")
    if url.username is None and is_loopback(url.host):
        return Finding("ok", "access", "no credentials: whoever is on this machine may read and write all")
    if len(allowed) == len(tried):
        return Finding(
            "fail", "access", f"{who} may publish anywhere: give the broker an ACL (`telemetry broker init`)"
        )
    text = f"{who} may publish to {allowed[0]}: give it the rules that docs/deploy.md lists, and no others"
    return Finding("fail", "access", text)
