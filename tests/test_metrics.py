"""What Prometheus scrapes: names, labels, values, of whom nothing is told, and text that its parser reads back."""

import math
import re
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from telemetry.fields import Field, ObjectList, Owner, Scalar, ScalarList, ScalarMap
from telemetry.health import AGENT_HEALTH, AGGREGATOR_HEALTH, HEALTHS
from telemetry.records import MINER_INFO, RECORDS, WORKER_INFO
from telemetry.render.prometheus import by_path, families, health_name
from telemetry.stores import HealthRow
from telemetry.topics import RecordKey
from telemetry.units import Unit
from telemetry.web.metrics import exposition

NOW = 1_763_900_123_456
MINER, HOST = RecordKey("f01234"), RecordKey("f01234", "seal01")


@dataclass
class Shown:
    fields: Mapping[str, Any]
    time: int = NOW


def _told(kind: str, name: str, metrics: Mapping[str, float]) -> HealthRow:
    return HealthRow(kind=kind, name=name, time=NOW, version="1", metrics=metrics, received=NOW - 5000)


def _text(records: Mapping[RecordKey, Shown], told: Collection[HealthRow] = ()) -> str:
    return b"".join(exposition(records, told, now=NOW)).decode()


def _series(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All series as the client library's parser reads them; none may come twice."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    series = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(series) == len(samples)
    return series


def _of(text: str, name: str, **labels: str) -> float | None:
    return _series(text).get((name, frozenset(labels.items())))


def _example(declared: Field) -> Any:
    match declared.type:
        case Scalar.STRING:
            return "text"
        case Scalar.BOOLEAN:
            return True
        case Scalar():
            return 1
        case ScalarList():
            return ["a", "b"]
        case ScalarMap():
            return {"a": 1}
        case ObjectList(members=members):
            return [{one.name: {Scalar.STRING: "x", Scalar.BOOLEAN: True}.get(one.type, 1) for one in members}]


def _whole_fleet() -> tuple[dict[RecordKey, Shown], list[HealthRow]]:
    records = {}
    for key in (MINER, HOST):
        fields = {one.name: _example(one) for one in key.record.fields}
        records[key] = Shown(fields | {"netState": "online"})
    names = {"agent": "f01234/seal01", "aggregator": "main", "broker": ""}
    told = [_told(one.name, names[one.name], {metric.name: 1.5 for metric in one.metrics}) for one in HEALTHS]
    return records, told


# --- names ---


def test_values_stand_in_base_units_under_the_names_of_their_fields() -> None:
    fields = {"cpuLoad": 37.5, "diskUsedPercent": 61.4, "totalMemory": 1 << 38, "diskR": 5,
              "gpuInfo": [{"index": 0, "temper": 61, "power": 300.5}, {"index": 1, "temper": 70}],
              "netSince": 1_763_900_000_500, "taskType": ["PC1", "C2"]}  # fmt: skip
    text = _text(
        {HOST: Shown(fields), MINER: Shown({"minerBalance": 12.5, "expectBlock": 3, "sectorStates": {"Proving": 7}})}
    )
    host = {"miner": "f01234", "host": "seal01"}
    assert _of(text, "telemetry_worker_cpu_load_ratio", **host) == 0.375
    assert _of(text, "telemetry_worker_disk_used_ratio", **host) == 0.614
    assert _of(text, "telemetry_worker_total_memory_bytes", **host) == 1 << 38
    assert _of(text, "telemetry_worker_disk_r_bytes_per_second", **host) == 5
    assert _of(text, "telemetry_worker_net_since_timestamp_seconds", **host) == 1_763_900_000.5
    assert _of(text, "telemetry_worker_gpu_info_temper_celsius", gpu="1", **host) == 70
    assert _of(text, "telemetry_worker_gpu_info_power_watts", gpu="0", **host) == 300.5
    assert _of(text, "telemetry_worker_gpu_info_power_watts", gpu="1", **host) is None
    assert _of(text, "telemetry_worker_task_type_info", task="C2", **host) == 1
    assert _of(text, "telemetry_miner_balance_fil", miner="f01234") == 12.5
    assert _of(text, "telemetry_miner_expect_block_wins_per_day", miner="f01234") == 3
    assert _of(text, "telemetry_miner_sector_states", miner="f01234", state="Proving") == 7


def test_a_queue_is_counted_by_task_and_state_with_its_earliest_start() -> None:
    jobs = [
        {"task": "seal/v0/precommit/1", "taskShort": "PC1", "state": state, "sector": 1, "worker": "", "start": start}
        for state, start in (("running", 2000), ("running", 1000), ("assigned", 3000))
    ]
    jobs[0]["overdue"] = True
    text = _text({HOST: Shown({"currentQueue": jobs})})
    running = {"miner": "f01234", "host": "seal01", "task": "PC1", "state": "running"}
    name = "telemetry_worker_current_queue"
    assert _of(text, name, **running) == 2
    assert _of(text, f"{name}_start_timestamp_seconds", **running) == 1
    assert _of(text, f"{name}_overdue", **running) == 1
    assert _of(text, f"{name}_overdue", **running | {"state": "assigned"}) == 0


def test_every_number_of_the_declaration_has_a_metric() -> None:
    for record in RECORDS:
        numbers = {one.name for one in record.fields if one.type in {Scalar.INTEGER, Scalar.NUMBER, Scalar.BOOLEAN}}
        members = {
            f"{one.name}.{member.name}"
            for one in record.fields
            if isinstance(one.type, ObjectList)
            for member in one.type.members
            if member.unit is not Unit.NONE
        }
        assert numbers | members <= by_path(record).keys()


def test_names_are_those_of_the_convention_and_no_two_are_the_same() -> None:
    named = [(family.name, family.field.unit) for record in RECORDS for family in families(record)]
    named += [(health_name(health, metric), metric.unit) for health in HEALTHS for metric in health.metrics]
    assert len({name for name, _ in named}) == len(named)
    for name, unit in named:
        assert re.fullmatch(r"telemetry_[a-z]+(_[a-z0-9]+)+", name)
        assert unit is not Unit.BYTES or re.search("_bytes(_total)?$", name)
        assert unit is not Unit.PERCENT or name.endswith("_ratio")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Debian's prometheus, is not installed")
def test_promtool_finds_nothing_to_say() -> None:
    text = _text(*_whole_fleet())
    names = {sample[0] for sample in _series(text)}
    assert names >= {family.name for record in RECORDS for family in families(record)}
    assert names >= {health_name(health, metric) for health in HEALTHS for metric in health.metrics}
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# --- who is gone ---


@pytest.mark.parametrize("state", ["lost", "stopped"])
def test_of_a_host_that_is_gone_only_the_state_and_the_age_are_told(state: str) -> None:
    fields = {"cpuLoad": 5, "gpuInfo": [{"index": 0, "temper": 61}], "netState": state, "netSince": 1000}
    told = _series(_text({HOST: Shown(fields, time=NOW - 90_000)}))
    host = frozenset({"miner": "f01234", "host": "seal01"}.items())
    assert {key: value for key, value in told.items() if key[0].startswith("telemetry_")} == {
        ("telemetry_worker_age_seconds", host): 90,
        ("telemetry_worker_net_state_info", host | {("state", state)}): 1,
        ("telemetry_worker_net_since_timestamp_seconds", host): 1,
    }


@pytest.mark.parametrize("state", ["online", "stale"])
def test_of_a_host_that_is_present_or_silent_the_values_are_kept(state: str) -> None:
    text = _text({HOST: Shown({"cpuLoad": 5, "netState": state})})
    assert _of(text, "telemetry_worker_cpu_load_ratio", miner="f01234", host="seal01") == 0.05


def test_what_the_miners_agent_states_of_a_host_goes_with_the_miners_agent() -> None:
    host = {"miner": "f01234", "host": "seal01"}
    fields = {"cpuLoad": 5, "runningTasks": 2}
    miner_lost = _text({MINER: Shown({"netState": "lost"}), HOST: Shown(fields | {"netState": "online"})})
    assert _of(miner_lost, "telemetry_worker_running_tasks", **host) is None
    assert _of(miner_lost, "telemetry_worker_cpu_load_ratio", **host) == 0.05
    host_lost = _text({MINER: Shown({"netState": "online"}), HOST: Shown(fields | {"netState": "lost"})})
    assert _of(host_lost, "telemetry_worker_running_tasks", **host) == 2
    assert _of(host_lost, "telemetry_worker_cpu_load_ratio", **host) is None


# --- what parts tell of themselves ---


def test_each_part_has_its_own_labels_and_what_is_counted_is_a_counter() -> None:
    told = [
        _told("agent", "f01234/_miner", {"dropped": 3, "rssBytes": 5}),
        _told("aggregator", "main", {"lost": 2}),
        _told("broker", "", {"clientsConnected": 7}),
    ]
    text = _text({}, told)
    assert _of(text, health_name(AGENT_HEALTH, AGENT_HEALTH.by_name["dropped"]), miner="f01234", agent="_miner") == 3
    assert _of(text, "telemetry_agent_rss_bytes", miner="f01234", agent="_miner") == 5
    assert _of(text, health_name(AGGREGATOR_HEALTH, AGGREGATOR_HEALTH.by_name["lost"]), aggregator="main") == 2
    assert _of(text, "telemetry_broker_clients_connected") == 7
    assert _of(text, "telemetry_aggregator_age_seconds", aggregator="main") == 5
    assert "# TYPE telemetry_aggregator_lost_total counter" in text


def test_of_an_agent_that_is_gone_only_the_age_of_what_it_told_is_told() -> None:
    told = [_told("agent", "f01234/seal01", {"rssBytes": 5})]
    text = _text({HOST: Shown({"netState": "lost"})}, told)
    assert _of(text, "telemetry_agent_rss_bytes", miner="f01234", agent="seal01") is None
    assert _of(text, "telemetry_agent_age_seconds", miner="f01234", agent="seal01") == 5


def test_the_process_that_is_scraped_tells_of_itself() -> None:
    assert (_of(_text({}), "process_resident_memory_bytes") or 0) > 1_000_000


# --- hostile values ---

TEXT = st.text(st.characters(codec="utf-8"))


@given(st.dictionaries(TEXT, st.integers(-(2**63), 2**63 - 1), max_size=5), TEXT.filter(bool))
def test_any_text_is_a_label_that_the_parser_reads_back(mounts: dict[str, int], host: str) -> None:
    key = RecordKey("f01234", host)
    disks = [
        {"mount": mount, "device": "", "filesystem": "", "total": total, "used": 0} for mount, total in mounts.items()
    ]
    read = {
        labels: value
        for (name, labels), value in _series(_text({key: Shown({"useDisk": disks})})).items()
        if name == "telemetry_worker_use_disk_total_bytes"
    }
    expected = {
        frozenset({"miner": "f01234", "host": host, "mount": mount}.items()): total for mount, total in mounts.items()
    }
    assert read == expected


@given(st.floats() | st.integers(-(2**63), 2**63 - 1))
def test_a_number_is_told_as_it_is_and_what_is_none_is_not_told(value: float) -> None:
    text = _text({HOST: Shown({"cpuTemper": value, "cpuLoad": value})})
    told = _of(text, "telemetry_worker_cpu_temper_celsius", miner="f01234", host="seal01")
    assert told == (value if math.isfinite(value) else None)
    assert "nan" not in text.lower()
    assert "inf" not in text.lower().replace("_info", "")


@given(st.lists(st.fixed_dictionaries({"index": st.integers(0, 2)}, optional={"temper": st.integers(0, 99)})))
def test_cards_of_one_index_are_one_series(cards: list[dict[str, Any]]) -> None:
    series = _series(_text({HOST: Shown({"gpuInfo": cards})}))
    indexes = {str(card["index"]) for card in cards if "temper" in card}
    assert {
        dict(labels)["gpu"] for name, labels in series if name == "telemetry_worker_gpu_info_temper_celsius"
    } == indexes


def test_owners_are_those_who_state_something() -> None:
    for record in (MINER_INFO, WORKER_INFO):
        assert {family.field.owner for family in families(record)} == {*record.senders, Owner.AGGREGATOR}
