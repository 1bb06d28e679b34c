"""What differs in a record between two times, from the database."""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import orjson

from telemetry.cli.moments import moments
from telemetry.cli.options import add_common, add_database, add_json, chosen, named_record
from telemetry.cli.tables import format_moment, format_value, print_table
from telemetry.errors import UsageError
from telemetry.fields import Field, Value
from telemetry.times import TIME_HELP, is_time, parse_time

_EXAMPLE = "expected TIME [TIME] MINER [HOST], as in `telemetry diff -1d f01234 seal01`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.usage = "telemetry diff [options] TIME [TIME] MINER [HOST]"
    parser.add_argument("time", metavar="TIME", help=TIME_HELP)
    parser.add_argument("words", metavar="MINER", nargs="+", help="the record; before it a second time (default: now)")
    add_common(parser)
    add_database(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print each field that differs: what it was, and what it became."""
    now = time.time_ns() // 1_000_000
    first, second, words = parse_time(arguments.time, now), now, list(arguments.words)
    if is_time(words[0], now):
        second = parse_time(words.pop(0), now)
    if len(words) not in {1, 2}:
        raise UsageError(_EXAMPLE)
    key = named_record(words[0], words[1] if len(words) > 1 else None)
    before, after = (moment.values for moment in moments(chosen(arguments).database, key, [first, second], now))
    names = [name for name in before | after if _differ(before.get(name), after.get(name))]
    if arguments.json:
        print(orjson.dumps([_told(name, before, after) for name in names]).decode())
        return 0
    print(f"{key}  from {format_moment(first)} to {format_moment(second)}")
    if not names:
        print("nothing differs")
        return 0
    declared = key.record.by_name
    rows = [(name, _change(declared.get(name), before.get(name), after.get(name))) for name in names]
    print_table(("FIELD", "CHANGE"), rows, folds="CHANGE")
    return 0


def _differ(before: Value | None, after: Value | None) -> bool:
    return before != after or isinstance(before, bool) != isinstance(after, bool)


def _told(name: str, before: dict[str, Value], after: dict[str, Value]) -> dict[str, Any]:
    """What was not known is left out: there is no null here."""
    values = {"before": before.get(name), "after": after.get(name)}
    return {"field": name} | {when: value for when, value in values.items() if value is not None}


def _change(declared: Field | None, before: Value | None, after: Value | None) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        return "\n".join(_changed_entries(before, after)) or "in another order"
    texts = ["not known" if value is None else format_value(declared, value) for value in (before, after)]
    if not any("\n" in text for text in texts):
        return f"{texts[0]} → {texts[1]}" if len("".join(texts)) < 60 else f"{texts[0]}\n→ {texts[1]}"
    # Of a list the elements that differ.
    old, new = (text.split("\n") for text in texts)
    gone, came = [line for line in old if line not in new], [line for line in new if line not in old]
    return "\n".join([*(f"- {line}" for line in gone), *(f"+ {line}" for line in came)]) or "in another order"


def _changed_entries(before: dict[str, Value], after: dict[str, Value]) -> Iterator[str]:
    for name in before | after:
        if before.get(name) != after.get(name):
            old, new = (format_value(None, one.get(name)) for one in (before, after))
            yield f"{name} {old} → {new}"
