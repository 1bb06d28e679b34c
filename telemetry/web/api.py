"""The read API: each route with its parameters, what it answers, and from what."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from telemetry import __version__
from telemetry.errors import UsageError
from telemetry.fields import Field, Member, ObjectList
from telemetry.records import MINER_INFO, RECORDS, WORKER_INFO
from telemetry.render.catalogue import type_name
from telemetry.render.json_schema import shown_record
from telemetry.stores.history.series import AGGREGATES
from telemetry.stores.reading import AGENT_STATES
from telemetry.times import TIME_HELP, parse_time
from telemetry.topics import RecordKey, require_miner_id, require_record_host
from telemetry.web.live import Live, ShownRecord
from telemetry.web.login import Viewer
from telemetry.web.past import MOST_POINTS, Past
from telemetry.web.routes import NotFoundError, Parameter, Route, Schema, document

MOST_FIELDS = 16
"""Fields of one question on the history."""

MOST_EVENTS = 1000

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What an answer is made of, and for whom."""

    live: Live
    past: Past
    viewer: Viewer


# --- what is ---


def _fields(_: Request) -> Answer:
    return {record.name: [_described(field) for field in record.fields] for record in RECORDS}


def _described(field: Field) -> Answer:
    told = _named(field) | {"type": type_name(field.type), "owner": field.owner.value}
    if (limits := field.thresholds) is not None:
        critical = {} if limits.critical is None else {"critical": limits.critical}
        told["thresholds"] = {"warning": limits.warning} | critical
    if isinstance(field.type, ObjectList):
        return told | {"members": [_named(one) | {"type": one.type.value} for one in field.type.members]}
    return told


def _named(declared: Field | Member) -> Answer:
    unit = declared.unit.value.symbol
    return {"name": declared.name, "unit": unit, "en": declared.english, "zh": declared.chinese}


def _miners(request: Request) -> Answer:
    live, sees = request.live, request.viewer.sees
    return {
        "time": live.now(),
        "miners": [_summary(feed.miner, feed.records) for feed in live.feeds.values() if sees(feed.miner)],
    }


def _summary(miner: str, records: dict[RecordKey, ShownRecord]) -> Answer:
    states = Counter(record.fields.get("netState") for key, record in records.items() if key.hostName is not None)
    own = records.get(RecordKey(miner))
    return {
        "minerId": miner,
        "hosts": states.total(),
        "states": {state: states[state] for state in AGENT_STATES},
        "record": None if own is None else own.flat,
        "time": max((record.time for record in records.values()), default=0),
    }


def _miner(request: Request, *, miner: str) -> Answer:
    return _record(request, RecordKey(miner))


def _workers(request: Request, *, miner: str) -> Answer:
    records = _known(request, miner)
    return {"workers": [record.flat for key, record in records.items() if key.hostName is not None]}


def _worker(request: Request, *, miner: str, host: str) -> Answer:
    return _record(request, RecordKey(miner, host))


def _record(request: Request, key: RecordKey) -> Answer:
    record = _known(request, key.minerId).get(key)
    if record is None:
        raise NotFoundError(f"{key}: no such record")
    return record.flat


def _require_seen(request: Request, miner: str) -> None:
    """Nobody learns of what is not theirs."""
    if not request.viewer.sees(miner):
        raise NotFoundError(f"{miner}: no such miner")


def _known(request: Request, miner: str) -> dict[RecordKey, ShownRecord]:
    _require_seen(request, miner)
    feed = request.live.feeds.get(miner)
    if feed is None or not feed.records:
        raise NotFoundError(f"{miner}: no such miner")
    return feed.records


# --- what was ---


def _history(
    request: Request,
    *,
    miner: str,
    host: str | None,
    field: list[str],
    since: int,
    until: int,
    step: int | None,
    agg: str,
) -> Answer:
    _require_seen(request, miner)
    _require_order(since, until)
    fields = list(dict.fromkeys(field))
    return request.past.history(RecordKey(miner, host), fields, since, until, step, agg)


def _events(request: Request, *, miner: str | None, host: str | None, since: int, until: int, limit: int) -> Answer:
    if host is not None and miner is None:
        raise UsageError("host: expected miner with it")
    if miner is not None:
        _require_seen(request, miner)
    _require_order(since, until)
    seen = miner or request.viewer.miner
    return request.past.events(None if seen is None else RecordKey(seen, host), since, until, limit)


def _quality(request: Request, *, miner: str) -> Answer:
    _require_seen(request, miner)
    return request.past.quality(miner)


def _require_order(since: int, until: int) -> None:
    if since >= until:
        raise UsageError("since: expected a time before until")


# --- parameters ---


def _moment(text: str) -> int:
    return parse_time(text, time.time_ns() // 1_000_000)


def _from_one_to(most: int, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise UsageError(f"expected 1 to {most}")
    return int(text)


def _limit(text: str) -> int:
    return _from_one_to(MOST_EVENTS, text)


_LONGEST_STEP = 30 * 86_400


def _seconds(text: str) -> int:
    return _from_one_to(_LONGEST_STEP, text)


def _field_name(text: str) -> str:
    if not text.isidentifier():
        raise UsageError(f"{text[:40]!r} is no field; `/api/fields` tells them")
    return text


def _aggregate(text: str) -> str:
    if text not in AGGREGATES:
        raise UsageError(f"expected {', '.join(AGGREGATES)}")
    return text


_MINER_SCHEMA: Schema = {"type": "string", "pattern": "^[ft]0[0-9]{1,19}$", "examples": ["f01234"]}
_HOST_SCHEMA: Schema = {"type": "string", "minLength": 1, "maxLength": 255, "examples": ["seal01"]}

_MINER = Parameter(
    name="miner", place="path", read=require_miner_id, schema=_MINER_SCHEMA, is_required=True, text="A miner's id."
)
_HOST = Parameter(
    name="host", place="path", read=require_record_host, schema=_HOST_SCHEMA, is_required=True, text="A host of it."
)
_OF_MINER = Parameter(name="miner", read=require_miner_id, schema=_MINER_SCHEMA, text="Of a miner; else of all.")
_OF_HOST = Parameter(name="host", read=require_record_host, schema=_HOST_SCHEMA, text="Of a host of the miner.")
_FIELD = Parameter(
    name="field",
    read=_field_name,
    schema={"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9]*$", "maxLength": 64, "examples": ["cpuLoad"]},
    is_required=True,
    most=MOST_FIELDS,
    text="A field that is a single value.",
)
_UNTIL = Parameter(
    name="until", read=_moment, schema={"type": "string"}, usual="now", text=f"To before this time: {TIME_HELP}."
)
_STEP = Parameter(
    name="step",
    read=_seconds,
    schema={"type": "integer", "minimum": 1, "maximum": _LONGEST_STEP},
    text=f"Seconds between two points, of which there are {MOST_POINTS} at the most; else as suits the range.",
)
_AGGREGATE = Parameter(
    name="agg",
    read=_aggregate,
    schema={"enum": list(AGGREGATES)},
    usual="mean",
    text="What a number did in a step; of other fields it is what held at the step's end.",
)
_LIMIT = Parameter(
    name="limit",
    read=_limit,
    schema={"type": "integer", "minimum": 1, "maximum": MOST_EVENTS},
    usual="200",
    text="No more than so many, the newest.",
)


def _since(usual: str) -> Parameter:
    return Parameter(
        name="since", read=_moment, schema={"type": "string"}, usual=usual, text=f"From this time on: {TIME_HELP}."
    )


# --- answers ---

_TIME: Schema = {"type": "integer", "description": "Unix time in milliseconds."}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_TEXT: Schema = {"type": "string"}


def _object(properties: Schema, *optional: str) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_MINER_RECORD, _WORKER_RECORD = shown_record(MINER_INFO), shown_record(WORKER_INFO)

_DESCRIBED = _object({
    "name": _TEXT, "type": _TEXT, "unit": _TEXT, "owner": _TEXT, "en": _TEXT, "zh": _TEXT,
    "members": _list(_object({})),
    "thresholds": _object({"warning": _NUMBER, "critical": _NUMBER}, "critical"),
}, "members", "thresholds")  # fmt: skip

_SUMMARY = _object({
    "minerId": _TEXT, "hosts": _COUNT, "states": _object(dict.fromkeys(AGENT_STATES, _COUNT)),
    "record": {"anyOf": [_MINER_RECORD, {"type": "null"}]}, "time": _TIME,
})  # fmt: skip

_POINT: Schema = {
    "type": "array",
    "items": {"type": ["number", "string", "boolean", "null"]},
    "minItems": 2,
    "maxItems": 2,
    "description": "When the step began (Unix time in milliseconds), and the value; null where none is known.",
}

_SERIES = _object({
    "minerId": _TEXT, "hostName": _TEXT, "since": _TIME, "until": _TIME, "step": {"type": "integer", "minimum": 1},
    "series": _list(_object({"field": _TEXT, "unit": _TEXT, "points": _list(_POINT)})),
    "damaged": _COUNT | {"description": "Parts of the history that could not be read, if any."},
}, "hostName", "damaged")  # fmt: skip

_EVENT = _object({
    "minerId": _TEXT, "hostName": _TEXT, "_time": _TIME, "event": _TEXT, "detail": _TEXT, "before": _TEXT,
    "lasted": _COUNT | {"description": "Milliseconds."},
}, "hostName", "detail", "before", "lasted")  # fmt: skip

_AGENT = _object({
    "agent": _TEXT, "state": _TEXT, "since": _TIME, "heard": _TIME, "version": _TEXT,
    "epoch": _COUNT, "position": _COUNT | {"description": "All up to it is held, or lost."},
    "lost": _COUNT | {"description": "Messages that will never come."},
    "late": _COUNT | {"description": "Messages that came late, and closed a gap."},
    "rejected": _COUNT | {"description": "Messages, of those kept, that could not be used."},
    "isWhole": {"type": "boolean", "description": "Whether nothing is missing now."},
}, "position")  # fmt: skip

_ROOT = "/api/miners"

_ANSWERED = (
    Route(
        path="/api/fields",
        text="The fields of both records.",
        answer=_fields,
        schema=_object({record.name: _list(_DESCRIBED) for record in RECORDS}),
    ),
    Route(
        path=_ROOT,
        text="All miners, with their hosts by state.",
        answer=_miners,
        schema=_object({"time": _TIME, "miners": _list(_SUMMARY)}),
    ),
    Route(
        path=f"{_ROOT}/{{miner}}", text="A miner's record.", answer=_miner, schema=_MINER_RECORD, parameters=(_MINER,)
    ),
    Route(
        path=f"{_ROOT}/{{miner}}/workers",
        text="The records of a miner's hosts.",
        answer=_workers,
        schema=_object({"workers": _list(_WORKER_RECORD)}),
        parameters=(_MINER,),
    ),
    Route(
        path=f"{_ROOT}/{{miner}}/workers/{{host:path}}",
        text="A host's record.",
        answer=_worker,
        schema=_WORKER_RECORD,
        parameters=(_MINER, _HOST),
    ),
    Route(
        path=f"{_ROOT}/{{miner}}/history",
        text="What fields of a record were over a time.",
        answer=_history,
        schema=_SERIES,
        parameters=(_MINER, _OF_HOST, _FIELD, _since("-1h"), _UNTIL, _STEP, _AGGREGATE),
        reads_database=True,
    ),
    Route(
        path=f"{_ROOT}/{{miner}}/quality",
        text="How whole what is held of a miner's agents is.",
        answer=_quality,
        schema=_object({"agents": _list(_AGENT)}),
        parameters=(_MINER,),
        reads_database=True,
    ),
    Route(
        path="/api/events",
        text="Who went away and who came back, the newest first.",
        answer=_events,
        schema=_object({"events": _list(_EVENT)}),
        parameters=(_OF_MINER, _OF_HOST, _since("-1d"), _UNTIL, _LIMIT),
        reads_database=True,
    ),
)

DOCUMENT = document(_ANSWERED, __version__)
"""The OpenAPI description."""


def _document(_: Request) -> Answer:
    return DOCUMENT


ROUTES = (*_ANSWERED, Route(path="/api/openapi.json", text="This description.", answer=_document, schema=_object({})))
