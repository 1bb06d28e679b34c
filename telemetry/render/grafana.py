"""How panels and dashboards are written in Grafana's JSON: units, thresholds, queries, where a panel stands.

Three data sources, each by a variable of the dashboard. _MQTT shows what is now, of one topic a panel; its topics are
written by the aggregator: flat, complete, of one type a field. Prometheus shows what was, and many hosts side by side.
SQLite shows what is neither a number nor of one record.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from telemetry.fields import Field, Record, Thresholds
from telemetry.health import Kind, Metric
from telemetry.render.prometheus import KEY_LABELS, by_path, divisor_of
from telemetry.units import Unit

Json: TypeAlias = dict[str, Any]

_SCHEMA_VERSION = 39
"""Of the dashboards: that of Grafana 11."""

COLUMNS = 24
"""Of Grafana's grid."""

_MQTT: Json = {"type": "grafana-mqtt-datasource", "uid": "${mqtt}"}
_PROMETHEUS: Json = {"type": "prometheus", "uid": "${prometheus}"}
_SQLITE: Json = {"type": "frser-sqlite-datasource", "uid": "${sqlite}"}

_SOURCES = {"mqtt": ("MQTT", _MQTT), "prometheus": ("Prometheus", _PROMETHEUS), "sqlite": ("SQLite", _SQLITE)}
"""The variables of the data sources: title, and how a panel names one. The provisioned uid is the variable's name."""

_UNITS: Mapping[Unit, str] = {
    Unit.NONE: "none",
    Unit.COUNT: "short",
    Unit.BYTES: "bytes",
    Unit.BYTES_PER_SECOND: "binBps",
    Unit.CELSIUS: "celsius",
    Unit.PERCENT: "percent",
    Unit.WATTS: "watt",
    Unit.FIL: "suffix: FIL",
    Unit.SECONDS: "s",
    Unit.WINS_PER_DAY: "suffix: wins/d",
    Unit.UNIX_MILLISECONDS: "dateTimeAsIso",
}

_GREEN, _ORANGE, _RED, _PLAIN = "green", "orange", "red", "text"

_NET_STATES = ({"type": "value", "options": {
    "online": {"color": _GREEN, "index": 0}, "stale": {"color": _ORANGE, "index": 1},
    "stopped": {"color": "blue", "index": 2}, "lost": {"color": _RED, "index": 3},
}},)  # fmt: skip
"""Of netState."""

_LOTUS_STATES = (
    {"type": "value", "options": {"ok": {"color": _GREEN, "index": 0}}},
    {"type": "regex", "options": {"pattern": "^(?!ok$).+", "result": {"color": _RED, "index": 1}}},
)
"""Of lotusState."""

ELIGIBILITY = (
    {"type": "value", "options": {"0": {"text": "not eligible", "color": _RED, "index": 0}}},
    {"type": "range", "options": {"from": 0, "to": None, "result": {"text": "eligible", "color": _GREEN, "index": 1}}},
)
"""Of expectBlock, which is 0 where a miner is not eligible."""

_MAPPINGS: Mapping[str, Sequence[Json]] = {"netState": _NET_STATES, "lotusState": _LOTUS_STATES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel: its JSON but for its number and place, and how large it is."""

    width: int
    height: int
    json: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row with a title above panels, which flow from left to right; it may be there once a value of a variable."""

    title: str
    panels: Sequence[Panel]
    repeat: str = ""
    collapsed: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, what its series are called, of what it tells, and in which unit where that is another.

    In a table the legend is the column's name; one without a legend brings its labels only.
    """

    expr: str
    legend: str
    about: Field | Metric | None = None
    unit: str = ""

    @property
    def shown(self) -> Json:
        """How its numbers are shown."""
        if self.about is not None and not self.unit:
            return _as_metric(self.about)
        return {"unit": self.unit}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A dashboard: what it is called and shows, which variables it has beside its data sources, and its rows."""

    uid: str
    title: str
    description: str
    sources: Sequence[str]
    rows: Sequence[Row]
    variables: Sequence[Json] = field(default_factory=tuple)
    since: str = "now-6h"
    refresh: str = ""

    def json(self) -> Json:
        """Grafana's JSON of it."""
        return {
            "annotations": {"list": []},
            "description": self.description,
            "editable": True,
            "fiscalYearStartMonth": 0,
            "graphTooltip": 1,
            "links": [_links()],
            "panels": list(_placed(self.rows)),
            "refresh": self.refresh,
            "schemaVersion": _SCHEMA_VERSION,
            "tags": ["telemetry"],
            "templating": {"list": [*(_source(name) for name in self.sources), *self.variables]},
            "time": {"from": self.since, "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "title": self.title,
            "uid": self.uid,
            "version": 1,
            "weekStart": "",
        }


# --- variables ---


def label_variable(name: str, title: str, query: str, *, multi: bool = False) -> Json:
    """A variable whose values are those of a label in Prometheus."""
    return {
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]} if multi else {},
        "datasource": _PROMETHEUS,
        "definition": query,
        "hide": 0,
        "includeAll": multi,
        "label": title,
        "multi": multi,
        "name": name,
        "options": [],
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 5,
        "type": "query",
    }


def database_variable(name: str, title: str, query: str) -> Json:
    """A variable whose values a statement finds."""
    return label_variable(name, title, query) | {"datasource": _SQLITE, "query": query}


def _source(name: str) -> Json:
    title, named = _SOURCES[name]
    return {
        "current": {"selected": True, "text": title, "value": name},
        "hide": 0,
        "includeAll": False,
        "label": title,
        "multi": False,
        "name": name,
        "options": [],
        "query": named["type"],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
        "type": "datasource",
    }


def _links() -> Json:
    """The other dashboards, with the same miner and host."""
    return {
        "asDropdown": True,
        "icon": "external link",
        "includeVars": True,
        "keepTime": False,
        "tags": ["telemetry"],
        "targetBlank": False,
        "title": "Telemetry",
        "tooltip": "",
        "type": "dashboards",
        "url": "",
    }


# --- panels on a topic ---


def live(
    kind: str,
    title: str,
    topic: str,
    record: Record,
    names: Sequence[str],
    *,
    width: int,
    height: int = 4,
    mappings: Mapping[str, Sequence[Json]] | None = None,
    more: Json | None = None,
) -> Panel:
    """Some fields of a record as its snapshots bring them, under their own names; `more` is of Grafana's JSON."""
    fields = [record.by_name[name] for name in names]
    mapped = {**_MAPPINGS, **(mappings or {})}
    overrides = [_override(one.name, _shown(one, mapped.get(one.name, ()))) for one in fields]
    return Panel(
        width=width,
        height=height,
        json={
            "title": title,
            "type": kind,
            "description": _told(fields),
            "datasource": _MQTT,
            "targets": [{"datasource": _MQTT, "refId": "A", "topic": topic}],
            # A frame has all fields of the record.
            "transformations": [{"id": "filterFieldsByName", "options": {"include": {"names": ["Time", *names]}}}],
            "fieldConfig": {"defaults": _defaults(kind) | {"noValue": "no message yet"}, "overrides": overrides},
            "options": _options(kind, names),
        }
        | (more or {}),
    )


def _told(fields: Iterable[Field | Metric]) -> str:
    return "\n".join(f"- {one.name}: {one.english} {one.chinese}" for one in fields)


def _shown(declared: Field, mappings: Sequence[Json]) -> Json:
    """How a field's values are shown in its own unit."""
    return _shown_as(_UNITS[declared.unit], declared.thresholds, 1, mappings)


def _shown_as(unit: str, thresholds: Thresholds | None, divisor: int, mappings: Sequence[Json] = ()) -> Json:
    shown: Json = {"unit": unit, "thresholds": {"mode": "absolute", "steps": _steps(thresholds, divisor)}}
    return shown | ({"mappings": list(mappings)} if mappings else {})


def _steps(thresholds: Thresholds | None, divisor: int) -> list[Json]:
    if thresholds is None:
        return [{"color": _PLAIN, "value": None}]
    steps = [{"color": _GREEN, "value": None}]
    if thresholds.critical is None:
        return [*steps, {"color": _RED, "value": thresholds.warning / divisor}]
    return [
        *steps,
        {"color": _ORANGE, "value": thresholds.warning / divisor},
        {"color": _RED, "value": thresholds.critical / divisor},
    ]


def _override(name: str, shown: Json) -> Json:
    properties = [{"id": key, "value": value} for key, value in shown.items()]
    return {"matcher": {"id": "byName", "options": name}, "properties": properties}


# --- panels on Prometheus ---


def series(record: Record, path: str, **matchers: str) -> str:
    """The series of a field, or of a list's member (`gpuInfo.temper`), whose labels match."""
    return selector(by_path(record)[path].name, **matchers)


def selector(name: str, **matchers: str) -> str:
    """The series of a metric whose labels match: `miner="$miner"`; a value that begins with ~ is an expression."""
    wanted = [
        f'{label}=~"{value[1:]}"' if value.startswith("~") else f'{label}="{value}"'
        for label, value in matchers.items()
    ]
    return f"{name}{{{','.join(wanted)}}}"


def history(
    title: str, queries: Sequence[Query], *, width: int, height: int = 8, stacked: bool = False, description: str = "",
) -> Panel:  # fmt: skip
    """What was: a line a series, all as the first query says."""
    defaults = _defaults("timeseries")
    if stacked:
        defaults["custom"] |= {"fillOpacity": 40, "stacking": {"group": "A", "mode": "normal"}}
    targets = [_target(one, number) | {"instant": False, "range": True} for number, one in enumerate(queries)]
    defaults |= queries[0].shown
    if len(defaults.get("thresholds", {"steps": []})["steps"]) > 1:
        defaults["custom"]["thresholdsStyle"] = {"mode": "dashed"}
    return _of_prometheus("timeseries", title, description, queries, targets, defaults, width, height)


def present(
    kind: str, title: str, queries: Sequence[Query], *, width: int, height: int = 4, description: str = "",
    is_info: bool = False,
) -> Panel:  # fmt: skip
    """What is now, of many: a number a series, all as the first query says; of an `_info` metric its label instead."""
    targets = [_target(one, number) | {"instant": True, "range": False} for number, one in enumerate(queries)]
    defaults = _defaults(kind) | queries[0].shown
    panel = _of_prometheus(kind, title, description, queries, targets, defaults, width, height)
    if is_info:
        panel.json["options"]["textMode"] = "name"
    return panel


def table(
    title: str, labels: Mapping[str, str], queries: Sequence[Query], *, width: int, height: int
) -> Panel:  # fmt: skip
    """A row for each combination of labels, a column a query. Labels lead to a dashboard, where they name one's uid."""
    instant = {"format": "table", "instant": True, "range": False}
    targets = [_target(one, number) | instant for number, one in enumerate(queries)]
    values = {f"Value #{target['refId']}": one.legend for target, one in zip(targets, queries, strict=True)}
    named = {value: legend for value, legend in values.items() if legend}
    organize = {
        "excludeByName": dict.fromkeys(["Time", *(value for value, legend in values.items() if not legend)], True),
        "indexByName": {name: place for place, name in enumerate([*labels, *named])},
        "renameByName": named,
    }
    panel = _of_prometheus("table", title, "", queries, targets, _defaults("table"), width, height)
    panel.json["transformations"] = [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]
    panel.json["fieldConfig"]["overrides"] = [
        *(_override(name, {"links": [_link(uid, labels)]}) for name, uid in labels.items() if uid),
        *(_override(one.legend, one.shown) for one in queries if one.legend),
    ]
    return panel


def _link(uid: str, labels: Iterable[str]) -> Json:
    """To a dashboard of the row's miner, and host where it has one."""
    variables = [f"var-{name}=${{__data.fields.{name}}}" for name in labels if name in KEY_LABELS.values()]
    return {"title": "Show it", "url": f"/d/{uid}?{'&'.join(variables)}"}


def _of_prometheus(
    kind: str, title: str, description: str, queries: Sequence[Query], targets: Sequence[Json], defaults: Json,
    width: int, height: int,
) -> Panel:  # fmt: skip
    about = dict.fromkeys(one.about for one in queries if one.about is not None)
    return Panel(
        width=width,
        height=height,
        json={
            "title": title,
            "type": kind,
            "description": "\n".join(filter(None, [description, _told(about)])),
            "datasource": _PROMETHEUS,
            "targets": list(targets),
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": _options(kind),
        },
    )


def _target(query: Query, number: int) -> Json:
    return {
        "datasource": _PROMETHEUS,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend,
        "refId": chr(ord("A") + number),
    }


def unit_in_prometheus(unit: Unit) -> str:
    """Grafana's name of the base unit in which a metric is."""
    return "percentunit" if unit is Unit.PERCENT else _UNITS[unit]


def _as_metric(declared: Field | Metric) -> Json:
    """How values are shown as Prometheus has them."""
    if isinstance(declared, Metric):
        return {"unit": _a_second(declared) if declared.kind is Kind.COUNTER else _UNITS[declared.unit]}
    return _shown_as(unit_in_prometheus(declared.unit), declared.thresholds, divisor_of(declared.unit))


def _a_second(counted: Metric) -> str:
    """The unit of a rate: of seconds of processor time it is a share."""
    return {Unit.BYTES: "binBps", Unit.SECONDS: "percentunit"}.get(counted.unit, "cps")


# --- panels on the database ---


def found(title: str, query: str, *, width: int, height: int, description: str, times: Sequence[str] = ()) -> Panel:
    """What a statement finds. Columns that are times are in seconds."""
    target: Json = {
        "datasource": _SQLITE,
        "queryText": query,
        "queryType": "table",
        "rawQueryText": query,
        "refId": "A",
        "timeColumns": list(times),
    }
    return Panel(
        width=width,
        height=height,
        json={
            "title": title,
            "type": "table",
            "description": description,
            "datasource": _SQLITE,
            "targets": [target],
            "fieldConfig": {"defaults": _defaults("table"), "overrides": []},
            "options": _options("table"),
        },
    )


# --- how kinds of panels are shown ---


def _defaults(kind: str) -> Json:
    if kind == "timeseries":
        custom: Json = {
            "drawStyle": "line", "fillOpacity": 10, "lineWidth": 1, "showPoints": "never", "spanNulls": False,
        }  # fmt: skip
        return {"color": {"mode": "palette-classic"}, "custom": custom}
    if kind == "table":
        custom = {"align": "auto", "cellOptions": {"type": "color-text"}, "filterable": True}
        return {"color": {"mode": "thresholds"}, "custom": custom} | _shown_as("none", None, 1)
    return {"color": {"mode": "thresholds"}}


def _options(kind: str, names: Sequence[str] = ()) -> Json:
    """`names`: the fields that one number each is shown of; none: all numbers."""
    chosen = f"/^({'|'.join(names)})$/" if names else ""
    reduced = {"calcs": ["lastNotNull"], "fields": chosen, "values": False}
    match kind:
        case "stat":
            return {"colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
                    "reduceOptions": reduced, "textMode": "value_and_name", "wideLayout": True}  # fmt: skip
        case "bargauge":
            return {"displayMode": "basic", "minVizHeight": 16, "minVizWidth": 8, "orientation": "horizontal",
                    "reduceOptions": reduced, "showUnfilled": True, "valueMode": "color"}  # fmt: skip
        case "table":
            return {"cellHeight": "sm", "footer": {"show": False}, "showHeader": True}
    return {
        "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


# --- where panels stand ---


def _placed(all_rows: Sequence[Row]) -> Iterator[Json]:
    number = top = 0
    for row in all_rows:
        number += 1
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
        head: Json = {"collapsed": row.collapsed, "gridPos": place, "id": number, "panels": [], "title": row.title,
                      "type": "row"}  # fmt: skip
        if row.repeat:
            head["repeat"] = row.repeat
        placed, top = _flow(row.panels, number, top + 1)
        number += len(placed)
        if row.collapsed:
            yield head | {"panels": placed}
            top = place["y"] + 1
        else:
            yield head
            yield from placed


def _flow(panels: Sequence[Panel], number: int, top: int) -> tuple[list[Json], int]:
    """Panels side by side as far as they fit, then below; and where the next may begin."""
    placed, left, lowest = [], 0, top
    for panel in panels:
        if left + panel.width > COLUMNS:
            left, top = 0, lowest
        number += 1
        place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
        placed.append(panel.json | {"id": number, "gridPos": place})
        left, lowest = left + panel.width, max(lowest, top + panel.height)
    return placed, lowest
