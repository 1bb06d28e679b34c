"""The read API: what each route answers, from the live copy and from the database."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from telemetry.fields import Field, Member, ObjectList
from telemetry.records import RECORDS
from telemetry.render.catalogue import type_name
from telemetry.topics import RecordKey, require_miner_id, require_record_host
from telemetry.web.live import Live, ShownRecord
from telemetry.web.routes import NotFoundError, Parameter, Route


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: a user, None where no login is needed, who sees one miner, None for all."""

    user: str | None = None
    miner: str | None = None

    def sees(self, miner: str) -> bool:
        """Whether the miner is theirs to see."""
        return self.miner in {None, miner}


@dataclass(frozen=True, slots=True)
class Request:
    """What a route answers: from what, and to whom."""

    live: Live
    viewer: Viewer


Answer = dict[str, Any]

STATES = ("online", "stale", "stopped", "lost")

_OBJECT = {"type": "object"}

_MINER = Parameter(
    name="miner",
    place="path",
    read=require_miner_id,
    schema={"type": "string", "pattern": "^[ft]0[0-9]{1,19}$", "example": "f01234"},
    text="A miner's id.",
    is_required=True,
)
_HOST = Parameter(
    name="host",
    place="path",
    read=require_record_host,
    schema={"type": "string", "minLength": 1, "maxLength": 255, "example": "seal01"},
    text="A host of the miner.",
    is_required=True,
)


def _fields(_: Request) -> Answer:
    return {record.name: [_described(field) for field in record.fields] for record in RECORDS}


def _described(field: Field) -> dict[str, Any]:
    told = _named(field) | {"type": type_name(field.type), "owner": field.owner.value}
    if isinstance(field.type, ObjectList):
        return told | {"members": [_named(one) | {"type": one.type.value} for one in field.type.members]}
    return told


def _named(declared: Field | Member) -> dict[str, str]:
    return {
        "name": declared.name, "unit": declared.unit.value.symbol, "en": declared.english, "zh": declared.chinese,
    }  # fmt: skip


def _miners(request: Request) -> Answer:
    live = request.live
    return {
        "time": live.now(),
        "miners": [_summary(live, miner) for miner in sorted(live.feeds) if request.viewer.sees(miner)],
    }


def _summary(live: Live, miner: str) -> dict[str, Any]:
    records = live.feeds[miner].records
    states = Counter(record.fields.get("netState") for key, record in records.items() if key.hostName is not None)
    own = records.get(RecordKey(miner))
    return {
        "minerId": miner,
        "hosts": states.total(),
        "states": {state: states[state] for state in STATES},
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


def _record(request: Request, key: RecordKey) -> dict[str, Any]:
    record = _known(request, key.minerId).get(key)
    if record is None:
        raise NotFoundError(f"{key}: no such record")
    return record.flat


def _known(request: Request, miner: str) -> dict[RecordKey, ShownRecord]:
    feed = request.live.feeds.get(miner)
    if feed is None or not feed.records or not request.viewer.sees(miner):
        raise NotFoundError(f"{miner}: no such miner")
    return feed.records


ROUTES = (
    Route(path="/api/fields", text="The fields of both records.", answer=_fields, schema=_OBJECT),
    Route(path="/api/miners", text="All miners, with their hosts by state.", answer=_miners, schema=_OBJECT),
    Route(path="/api/miners/{miner}", text="A miner's record.", answer=_miner, schema=_OBJECT, parameters=(_MINER,)),
    Route(
        path="/api/miners/{miner}/workers",
        text="The records of a miner's hosts.",
        answer=_workers,
        schema=_OBJECT,
        parameters=(_MINER,),
    ),
    Route(
        path="/api/miners/{miner}/workers/{host:path}",
        text="A host's record.",
        answer=_worker,
        schema=_OBJECT,
        parameters=(_MINER, _HOST),
    ),
)
