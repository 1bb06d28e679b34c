"""The dashboards: they are what Grafana reads, and each of their queries brings what its panel shows."""

import base64
import gzip
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from telemetry.fields import Scalar
from telemetry.records import MINER_INFO, RECORDS, WORKER_INFO
from telemetry.render.alerts import alerts, alerts_file
from telemetry.render.dashboards import dashboards
from telemetry.render.grafana import COLUMNS
from telemetry.render.prometheus import age_name, families
from telemetry.simulate.accounts import MINER
from telemetry.topics import LONGEST_GRAFANA_TOPIC, RecordKey, Topics
from telemetry.web.metrics import CONTENT_TYPE
from tests.parts import FAST, Broker, Listener, Process, own_port, wait_for

ROOT = Path(__file__).parents[1]
GRAFANA = ROOT / "broker" / "grafana"
HOST = "seal01"
HOSTS = {"seal01", "seal02", "seal03"}
"""Those with an agent; Lotus knows more."""

Json = dict[str, Any]

DASHBOARDS: Mapping[str, Json] = {one.uid: json.loads(json.dumps(one.json())) for one in dashboards()}

KINDS = {"stat", "bargauge", "timeseries", "table"}
SOURCES = {"mqtt": "grafana-mqtt-datasource", "prometheus": "prometheus", "sqlite": "frser-sqlite-datasource"}
UNITS = {"none", "short", "bytes", "binBps", "celsius", "percent", "percentunit", "watt", "s", "dateTimeAsIso", "cps"}
"""Ids of https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts"""

LOOKED_FOR = frozenset(
    [
        "effectivePower",
        "rawPower",
        "expectBlock",
        "minerAvailable",
        "lockedFunds",
        "pledgeBalance",
        "workerBalance",
        "postBalance",
        "errorSectors",
        "recoverySectors",
        "chainLag",
        "deadlineIndex",
        "deadlineProven",
        "cpuLoad",
        "gpuLoad",
        "useMemory",
        "diskUsedPercent",
        "telemetry_miner_sector_states",
        "telemetry_worker_current_queue{",
        "telemetry_worker_task_type_info",
        "telemetry_worker_current_queue_start_timestamp_seconds",
        "eligible",
        "telemetry_worker_use_disk_used_bytes",
        "telemetry_miner_chain_lag_seconds",
    ]
)
"""By storage providers."""

NEEDS_PROMETHEUS = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus, of Debian's package, is not installed"
)
NEEDS_PROMTOOL = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool, of Debian's prometheus, is not installed"
)


def _panels(dashboard: Json) -> Iterator[Json]:
    """All panels but rows, also those in collapsed rows."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


PANELS = [
    pytest.param(panel, id=f"{uid}: {panel['title']}") for uid, one in DASHBOARDS.items() for panel in _panels(one)
]


def _targets(source: str) -> list[Any]:
    return [
        pytest.param(panel, target, id=f"{uid}: {panel['title']} {target['refId']}")
        for uid, one in DASHBOARDS.items()
        for panel in _panels(one)
        for target in panel["targets"]
        if target["datasource"]["type"] == SOURCES[source]
    ]


def _filled(text: str) -> str:
    """A query as Grafana sends it, of the simulated miner and one of its hosts."""
    values = {"$miner": MINER, "$host": HOST, "${miner:sqlstring}": f"'{MINER}'", "$__rate_interval": "10s",
              "$__from": "0", "$__to": str(2**53)}  # fmt: skip
    for name, value in sorted(values.items(), reverse=True):
        text = text.replace(name, value)
    assert not re.search(r"\$[\w{]", text)
    return text


# --- what Grafana reads ---


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_a_dashboard_is_what_grafana_provisions(uid: str) -> None:
    dashboard = DASHBOARDS[uid]
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", uid)
    assert "id" not in dashboard
    assert dashboard["schemaVersion"] == 39
    assert dashboard["title"]
    assert dashboard["description"]
    rows = [panel for panel in dashboard["panels"] if panel["type"] == "row"]
    numbers = [panel["id"] for panel in [*rows, *_panels(dashboard)]]
    assert len(set(numbers)) == len(numbers)
    variables = [one["name"] for one in dashboard["templating"]["list"]]
    assert len(set(variables)) == len(variables)
    for row in rows:
        assert row.get("repeat", variables[0]) in variables


def test_titles_and_uids_are_of_one_dashboard_each() -> None:
    assert len({one["title"] for one in DASHBOARDS.values()}) == len(DASHBOARDS) == len(dashboards())


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_panels_stand_within_the_grid_and_none_covers_another(uid: str) -> None:
    def cells(panel: Json) -> set[tuple[int, int]]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        return {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}

    for shown in (DASHBOARDS[uid]["panels"], *(panel.get("panels", []) for panel in DASHBOARDS[uid]["panels"])):
        taken: set[tuple[int, int]] = set()
        for panel in shown:
            assert taken.isdisjoint(cells(panel)), panel["title"]
            taken |= cells(panel)


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_queries_name_their_data_source_by_a_variable_of_the_dashboard(uid: str) -> None:
    dashboard = DASHBOARDS[uid]
    sources = {one["name"]: one["query"] for one in dashboard["templating"]["list"] if one["type"] == "datasource"}
    assert sources.items() <= SOURCES.items()
    asked = [one for one in dashboard["templating"]["list"] if one["type"] == "query"]
    for panel in _panels(dashboard):
        assert len({one["refId"] for one in panel["targets"]}) == len(panel["targets"])
        asked += [panel, *panel["targets"]]
    for one in asked:
        assert one["datasource"]["uid"] in {f"${{{name}}}" for name in sources}
        assert one["datasource"]["type"] == sources[one["datasource"]["uid"][2:-1]]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_a_description_and_units_that_there_are(panel: Json) -> None:
    assert panel["type"] in KINDS
    assert panel["title"]
    assert panel["description"]
    assert panel["targets"]
    overrides = panel["fieldConfig"]["overrides"]
    properties = [one for override in overrides for one in override["properties"]]
    units = [one["value"] for one in properties if one["id"] == "unit"]
    units += [panel["fieldConfig"]["defaults"]["unit"]] if "unit" in panel["fieldConfig"]["defaults"] else []
    assert all(unit in UNITS or unit.startswith("suffix:") for unit in units)
    steps = [one["value"]["steps"] for one in properties if one["id"] == "thresholds"]
    for bounds in ([step["value"] for step in one] for one in steps):
        assert bounds[0] is None
        assert bounds[1:] == sorted(bounds[1:])


def test_what_storage_providers_look_for_is_there() -> None:
    text = json.dumps(list(DASHBOARDS.values()))
    assert [name for name in LOOKED_FOR if name not in text] == []


def test_a_link_of_a_table_leads_to_a_dashboard_and_gives_it_its_variables() -> None:
    links = re.findall(r'"/d/([^?"]+)\?([^"]+)"', json.dumps(list(DASHBOARDS.values())))
    assert {uid for uid, _ in links} == {"telemetry-miner", "telemetry-host"}
    for uid, parameters in links:
        given = dict(one.split("=") for one in parameters.split("&"))
        wanted = [one["name"] for one in DASHBOARDS[uid]["templating"]["list"] if one["type"] == "query"]
        assert given == given | {f"var-{name}": f"${{__data.fields.{name}}}" for name in wanted}


def test_a_live_dashboard_has_no_refresh_which_would_blank_it() -> None:
    for uid, dashboard in DASHBOARDS.items():
        assert (dashboard["refresh"] == "") == uid.startswith("telemetry-live")


def test_history_and_many_hosts_are_not_asked_of_mqtt() -> None:
    for target in _targets("mqtt"):
        assert not set(target.values[1]["topic"]) & set("+#")


# --- provisioning ---


def test_the_provisioned_sources_are_those_that_the_dashboards_look_for() -> None:
    text = (GRAFANA / "provisioning" / "datasources" / "telemetry.yaml").read_text()
    assert dict(re.findall(r"^    uid: (\w+)\n    type: ([\w-]+)$", text, re.MULTILINE)) == SOURCES
    for dashboard in DASHBOARDS.values():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "datasource":
                assert variable["current"]["value"] == variable["name"]


def test_the_commands_of_the_page_put_all_where_grafana_and_prometheus_read_it(tmp_path: Path) -> None:
    def run(command: str) -> None:
        real = re.sub(r"/(etc|var)/", rf"{tmp_path}/\1/", command)
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", real], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr

    for place in ("prometheus", "grafana/provisioning/dashboards", "grafana/provisioning/datasources"):
        (tmp_path / "etc" / place).mkdir(parents=True)
    run("telemetry broker init --name localhost --data /var/lib/telemetry")
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "grafana.md").read_text(), re.DOTALL):
        for command in block.splitlines():
            if not command.startswith("promtool") or shutil.which("promtool"):
                run(command)
    provisioning = tmp_path / "etc" / "grafana" / "provisioning"
    [dashboards_at] = re.findall(r"path: (\S+)", (provisioning / "dashboards" / "telemetry.yaml").read_text())
    assert {one.stem for one in (tmp_path / dashboards_at[1:]).iterdir()} == DASHBOARDS.keys()
    sources = (provisioning / "datasources" / "telemetry.yaml").read_text()
    named = re.findall(r"\$__file{(\S+)}", sources)
    assert named
    assert all((tmp_path / one[1:]).read_text() for one in named)
    [username] = re.findall(r"username: (\S+)", sources)
    assert (tmp_path / "etc" / "grafana" / "telemetry" / "username").read_text().strip() == username


# --- alerts ---


@NEEDS_PROMTOOL
def test_promtool_accepts_the_alerts_and_the_example_of_a_configuration() -> None:
    for command in (["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=ROOT / "broker" / "prometheus", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (ROOT / "broker" / "prometheus" / "alerts.yml").read_text() == alerts_file()


def test_alerts_have_names_of_their_own_and_each_threshold_has_one() -> None:
    names = [one.name for one in alerts()]
    assert len(set(names)) == len(names)
    for record in RECORDS:
        for declared in record.fields:
            if declared.thresholds is not None:
                assert f"{declared.name[:1].upper()}{declared.name[1:]}Warning" in names


_FIRING = {
    "HostLost": ('telemetry_worker_net_state_info{miner="f01234",host="seal01",state="lost"}', "1"),
    "LotusUnusable": ('telemetry_miner_lotus_state_info{miner="f01234",state="no answer"}', "1"),
    "ErrorSectorsWarning": ('telemetry_miner_error_sectors{miner="f01234"}', "3"),
    "DiskUsedPercentCritical": ('telemetry_worker_disk_used_ratio{miner="f01234",host="seal01"}', "0.97"),
    "GpuTemperWarning": ('telemetry_worker_gpu_temper_celsius{miner="f01234",host="seal01"}', "83"),
    "AggregatorSilent": ('telemetry_aggregator_age_seconds{aggregator="main"}', "400"),
    "AggregatorLag": ('telemetry_aggregator_lag_p99_seconds{aggregator="main"}', "60"),
}


@NEEDS_PROMTOOL
@pytest.mark.parametrize("name", _FIRING)
def test_an_alert_fires_when_it_should_and_not_before(name: str, tmp_path: Path) -> None:
    series, value = _FIRING[name]
    _promtool_test(tmp_path, name, {series: f"{value}x30"})


@NEEDS_PROMTOOL
def test_a_deadline_that_closes_soon_with_partitions_not_proven_is_told(tmp_path: Path) -> None:
    numbers = {"partitions": "3x30", "proven": "1x30", "close": "1000x30"}
    series = {f'telemetry_miner_deadline_{name}{{miner="f01234"}}': value for name, value in numbers.items()}
    _promtool_test(tmp_path, "DeadlineAtRisk", series | {'telemetry_miner_chain_height{miner="f01234"}': "985x30"})


@NEEDS_PROMTOOL
def test_messages_that_are_lost_are_told(tmp_path: Path) -> None:
    _promtool_test(tmp_path, "MessagesLost", {'telemetry_aggregator_lost_total{aggregator="main"}': "0+1x30"})


def _promtool_test(place: Path, name: str, series: Mapping[str, str]) -> None:
    """Whether an alert is silent at first and fires after 20 minutes of some series."""
    (place / "alerts.yml").write_text(alerts_file())
    labels = dict(re.findall(r'(\w+)="([^"]*)"', next(iter(series))))
    [alert] = [one for one in alerts() if one.name == name]
    firing = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
    inputs = [{"series": one, "values": values} for one, values in series.items()]
    test = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": inputs,
                "promql_expr_test": [
                    {"expr": firing, "eval_time": when, "exp_samples": [{"labels": "{}", "value": fires}]}
                    for when, fires in (("0m", 0), ("20m", 1))
                ],
            }
        ],
    }  # fmt: skip
    assert labels
    assert alert.severity in {"warning", "critical"}
    (place / "test.yml").write_text(json.dumps(test))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- a live run ---


@dataclass
class Framer:
    """How Grafana's MQTT source makes a frame of a topic's messages (grafana/mqtt-datasource, pkg/mqtt/framer.go).

    One column a top-level key, of the type that it had first; a null in a known column breaks the stream.
    """

    types: dict[str, str] = field(default_factory=lambda: {"Time": "time"})
    mismatches: list[str] = field(default_factory=list)

    def take(self, payload: bytes) -> None:
        message = json.loads(payload, object_pairs_hook=self._pairs)
        for name, value in message.items():
            assert value is not None
            kind = self._type(value)
            if self.types.setdefault(name, kind) != kind:
                self.mismatches.append(name)

    @staticmethod
    def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        assert all(names)
        assert len(set(names)) == len(names)
        return dict(pairs)

    @staticmethod
    def _type(value: Any) -> str:
        if isinstance(value, bool):
            return "bool"
        if isinstance(value, str):
            return "string"
        return "float64" if isinstance(value, int | float) else "json"


COLUMN_OF = {Scalar.STRING: "string", Scalar.INTEGER: "float64", Scalar.NUMBER: "float64", Scalar.BOOLEAN: "bool"}


@dataclass
class Run:
    """A simulated fleet with all that stands around it, and the snapshots that it published."""

    listener: Listener
    database: Path
    web: str
    processes: Sequence[Process]

    @property
    def fleet(self) -> Process:
        return self.processes[1]

    @property
    def log(self) -> str:
        return "\n".join(one.text for one in self.processes)

    def scrape(self, encoding: str) -> str:
        request = urllib.request.Request(f"{self.web}/metrics", headers={"Accept-Encoding": encoding})
        with urllib.request.urlopen(request, timeout=10) as answer:
            content = answer.read()
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            assert answer.headers["Content-Encoding"] == (None if encoding == "identity" else encoding)
        return (gzip.decompress(content) if encoding == "gzip" else content).decode()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    place = tmp_path_factory.mktemp("dashboards")
    (place / "fast.toml").write_text(FAST.replace("host = 0.2", "host = 0.2\nhealth = 1"))
    broker = Broker(place).start()
    port = own_port(31)
    shared = ("--data", str(place), "--broker", broker.url, "--config", str(place / "fast.toml"))
    parts = [
        Process(place, "aggregator", *shared).start(),
        Process(place, "simulate", *shared, "--hosts", "3", "--speed", "600").start(),
        Process(place, "web", *shared, "--port", str(port)).start(),
    ]
    listener = Listener(broker.url, "miners/#")
    running = Run(listener, place / "telemetry.db", f"http://127.0.0.1:{port}", parts)
    topics = [Topics().snapshot(key) for key in (RecordKey(MINER), RecordKey(MINER, HOST))]
    wait_for(lambda: all(len(listener.of(one)) > 4 for one in topics), seconds=60, what=running.log)
    wait_for(lambda: b"unassignedTasks" in listener.of(topics[0])[-1].payload, seconds=60, what=running.log)
    wait_for(lambda: b"runningTasks" in listener.of(topics[1])[-1].payload, seconds=60, what=running.log)
    yield running
    listener.close()
    for part in reversed(parts):
        part.end()
    broker.end()


@pytest.mark.parametrize(("panel", "target"), _targets("mqtt"))
def test_the_first_message_of_a_topic_brings_all_columns_of_a_panel(panel: Json, target: Json, run: Run) -> None:
    topic = _filled(target["topic"])
    record = WORKER_INFO if "/workers/" in topic else MINER_INFO
    [wanted] = [one["options"]["include"]["names"] for one in panel["transformations"]]
    messages = run.listener.of(topic)
    framer = Framer()
    framer.take(messages[-1].payload)
    assert {name: framer.types.get(name) for name in wanted} == {
        name: "time" if name == "Time" else COLUMN_OF[record.by_name[name].type]  # type: ignore[index]
        for name in wanted
    }
    # What is shown is chosen among the columns by their names.
    chosen = panel["options"].get("reduceOptions", {}).get("fields")
    assert chosen is None or {name for name in framer.types if re.search(chosen[1:-1], name)} == set(wanted) - {"Time"}


def test_no_message_of_a_run_changes_a_columns_type_or_breaks_the_stream(run: Run) -> None:
    framers: dict[str, Framer] = {}
    for message in run.listener.messages:
        if message.topic.endswith("/snapshot"):
            framers.setdefault(message.topic, Framer()).take(message.payload)
    assert {topic: framer.mismatches for topic, framer in framers.items()} == {topic: [] for topic in framers}
    assert len(framers) >= 4
    assert all("Time" not in json.loads(message.payload) for message in run.listener.messages if message.payload)


def test_a_topic_of_the_longest_names_that_are_promised_fits_into_a_channel() -> None:
    def channel(topic: str) -> str:
        """As grafana/mqtt-datasource (streaming.ts, query.go) and Grafana Live make it."""
        encoded = base64.urlsafe_b64encode(topic.encode()).decode().rstrip("=")
        return f"ds/mqtt/1s/{encoded}/mqtt/{'0' * 16}/default"

    assert len(channel("x" * LONGEST_GRAFANA_TOPIC)) <= 160
    for target in _targets("mqtt"):
        assert len(_filled(target.values[1]["topic"])) <= LONGEST_GRAFANA_TOPIC


def test_topics_of_panels_are_those_of_snapshots() -> None:
    topics = {_filled(target.values[1]["topic"]) for target in _targets("mqtt")}
    assert topics == {Topics().snapshot(key) for key in (RecordKey(MINER), RecordKey(MINER, HOST))}


@pytest.mark.parametrize(("panel", "target"), _targets("sqlite"))
def test_a_statement_finds_what_its_panel_shows(panel: Json, target: Json, run: Run) -> None:
    with closing(sqlite3.connect(f"file:{run.database}?mode=ro", uri=True)) as connection:
        cursor = connection.execute(_filled(target["rawQueryText"]))
        columns = [one[0] for one in cursor.description]
        rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    assert set(target["timeColumns"]) <= set(columns)
    assert rows or panel["title"] in {"Rejected", "Waiting tasks"}
    for row in rows:
        for name in target["timeColumns"]:
            assert row[name] is None or 1e9 < row[name] < 1e10


# --- a real Prometheus ---


class Prometheus:
    """Debian's, which scrapes a run each second."""

    def __init__(self, place: Path, target: str) -> None:
        self._port = own_port(43)
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "2s"},
            "rule_files": [str(ROOT / "broker" / "prometheus" / "alerts.yml")],
            "scrape_configs": [
                {"job_name": "telemetry", "static_configs": [{"targets": [target.removeprefix("http://")]}]}
            ],
        }
        (place / "prometheus.yml").write_text(json.dumps(configuration))
        self._log = (place / "prometheus.log").open("wb")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/data",
             f"--web.listen-address=127.0.0.1:{self._port}"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        wait_for(self._is_ready, seconds=30, what="prometheus is ready")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expr: str) -> list[Any]:
        found: list[Any] = self.get("query", query=expr)["result"]
        return found

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self._log.close()


@pytest.fixture(scope="module")
def prometheus(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    running = Prometheus(tmp_path_factory.mktemp("prometheus"), run.web)
    yield running
    running.end()


@NEEDS_PROMETHEUS
def test_prometheus_scrapes_the_fleet(prometheus: Prometheus) -> None:
    def scraped() -> bool:
        return any(float(one["value"][1]) == 1 for one in prometheus.query("up"))

    wait_for(scraped, seconds=30, what="a scrape")
    [target] = prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    wait_for(lambda: prometheus.query(age_name(WORKER_INFO)), seconds=20, what="hosts")
    assert {one["metric"]["host"] for one in prometheus.query(age_name(WORKER_INFO))} >= HOSTS
    names = set(prometheus.get("label/__name__/values"))
    hardware = {one.name for one in families(WORKER_INFO) if one.field.owner.value == "hardware"}
    assert hardware <= names
    help_texts = prometheus.get("metadata")
    assert help_texts["telemetry_worker_cpu_load_ratio"][0]["help"] == WORKER_INFO.by_name["cpuLoad"].english


@NEEDS_PROMETHEUS
@pytest.mark.parametrize(("panel", "target"), _targets("prometheus"))
def test_an_expression_of_a_panel_finds_series(panel: Json, target: Json, prometheus: Prometheus, run: Run) -> None:
    found = wait_for(lambda: prometheus.query(_filled(target["expr"])), seconds=45, what=f"{target['expr']}\n{run.log}")
    # A legend is made of labels that the series have.
    for name in re.findall(r"{{(\w+)}}", target["legendFormat"]):
        assert all(name in one["metric"] for one in found)
    assert panel["type"] != "stat" or len(found) < 10


@NEEDS_PROMETHEUS
@pytest.mark.parametrize("uid", [uid for uid, one in DASHBOARDS.items() if "sqlite" not in json.dumps(one)])
def test_a_variable_has_values(uid: str, prometheus: Prometheus) -> None:
    for variable in DASHBOARDS[uid]["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert asked
            match = {"match[]": _filled(asked[1])}
            values = wait_for(lambda: prometheus.get(f"label/{asked[2]}/values", **match), seconds=20, what=uid)  # noqa: B023
            assert {"miner": {MINER}, "host": HOSTS}[variable["name"]] <= set(values)


@NEEDS_PROMETHEUS
def test_the_alerts_are_evaluated(prometheus: Prometheus) -> None:
    def evaluated() -> bool:
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        return len(rules) == len(list(alerts())) and all(rule["health"] == "ok" for rule in rules)

    wait_for(evaluated, seconds=90, what="rules")


# --- a fleet that dies; the last test, because there is nothing to see after it ---


def test_compressed_or_not_the_metrics_are_the_same_and_of_a_fleet_that_died_only_states_are_left(run: Run) -> None:
    assert _names(run.scrape("gzip")) == _names(run.scrape("identity")) >= {"telemetry_worker_cpu_load_ratio"}
    run.fleet.kill()
    lost = f'telemetry_worker_net_state_info{{miner="{MINER}",host="{HOST}",state="lost"}} 1'
    wait_for(lambda: run.scrape("gzip").count('state="lost"') > len(HOSTS), seconds=30, what="all are lost")
    text = run.scrape("gzip")
    assert lost in text
    told = {name for name in _names(text) if re.match("telemetry_(worker|miner|agent)_", name)}
    assert told == {
        f"telemetry_{one}_{name}"
        for one in ("worker", "miner")
        for name in ("age_seconds", "net_state_info", "net_since_timestamp_seconds")
    } | {"telemetry_agent_age_seconds"}


def _names(text: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
