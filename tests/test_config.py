"""Settings from a file, variables and options: which one stands, and what is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.cli.options import DEFAULT_BROKER, Chosen
from telemetry.config import Settings, SourceSettings, Table, read_settings, require_known
from telemetry.errors import UsageError


def _read(text: str = "", environ: dict[str, str] | None = None, options: Table | None = None) -> Settings:
    return read_settings(text=text, file="my.toml", environ=environ or {}, options=options or {})


def _refused(text: str = "", environ: dict[str, str] | None = None, options: Table | None = None) -> str:
    with pytest.raises(UsageError) as refused:
        _read(text, environ, options)
    return str(refused.value)


def test_nothing_set_gives_the_defaults() -> None:
    assert _read() == Settings()


def test_a_variable_overrides_the_file_and_an_option_overrides_both() -> None:
    text = '[broker]\nurl = "file"\n[agent]\nname = "file"\nminer = "file"\n'
    environ = {"TELEMETRY_AGENT_NAME": "variable", "TELEMETRY_AGENT_MINER": "variable", "HOME": "/root"}
    settings = _read(text, environ, {"agent": {"miner": "option"}})
    assert (settings.broker.url, settings.agent.name, settings.agent.miner) == ("file", "variable", "option")


def test_a_variable_sets_a_source_and_a_deadband() -> None:
    environ = {"TELEMETRY_SOURCES_GPU_INTERVAL": "30", "TELEMETRY_DEADBANDS_cpuLoad": "1.5"}
    settings = _read("[sources.gpu]\ninterval = 5\ndeadline = 7\n", environ)
    assert settings.sources == {"gpu": SourceSettings(interval=30, deadline=7)}
    assert settings.deadbands == {"cpuLoad": 1.5}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("brokr = 1", "my.toml: unknown setting brokr; did you mean broker?"),
        ("[intervals]\nhots = 1", "my.toml: unknown setting intervals.hots; did you mean intervals.host?"),
        ("[sources.gpu]\nintervall = 1", "unknown setting sources.gpu.intervall; did you mean sources.gpu.interval?"),
    ],
)
def test_an_unknown_setting_is_told_with_the_nearest_known_one(text: str, told: str) -> None:
    assert _refused(text) == told


def test_an_unknown_variable_is_told_with_the_nearest_known_one() -> None:
    told = _refused(environ={"TELEMETRY_INTERVAL_HOST": "1"})
    assert told == "environment: unknown TELEMETRY_INTERVAL_HOST; did you mean TELEMETRY_INTERVALS_HOST?"


@pytest.mark.parametrize(("table", "name"), [("sources", "gpus"), ("deadbands", "gpuLaod")])
def test_an_unknown_source_or_deadband_is_told_with_the_nearest_known_one(table: str, name: str) -> None:
    with pytest.raises(UsageError) as refused:
        require_known({name: 1}, ["system", "gpu", "gpuLoad"], table)
    nearest = "gpu" if table == "sources" else "gpuLoad"
    assert str(refused.value) == f"unknown setting {table}.{name}; did you mean {table}.{nearest}?"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("broker = 1", "broker"),
        ("[broker]\nurl = 1", "broker.url"),
        ("[broker]\nconnections = true", "broker.connections"),
        ("[broker]\nconnections = 1.5", "broker.connections"),
        ("[broker]\nconnections = inf", "broker.connections"),
        ("[broker]\nconnections = -1", "broker.connections"),
        ('[broker]\nprotocol = "4"', "broker.protocol"),
        ("[broker]\nprotocol = 5", "broker.protocol"),
        ('[intervals]\nhost = "often"', "intervals.host"),
        ("[intervals]\nhost = nan", "intervals.host"),
        ("[intervals]\nhost = []", "intervals.host"),
        (f"[intervals]\nhost = 1{'0' * 400}", "intervals.host"),
        ("[sources]\ngpu = 5", "sources.gpu"),
        ('[deadbands]\ncpuLoad = ""', "deadbands.cpuLoad"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(text: str, name: str) -> None:
    assert _refused(text).split(":")[0].split(" =")[0] == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[intervals]\npush = 0", "intervals.push"),
        ("[intervals]\nhost = 0.01", "intervals.host"),
        ("[sources.gpu]\ninterval = 0.01", "sources.gpu.interval"),
        ("[sources.gpu]\ndeadline = 0", "sources.gpu.deadline"),
    ],
)
def test_an_interval_that_would_leave_no_rest_is_refused(text: str, name: str) -> None:
    assert _refused(text).startswith(f"{name} = ")
    assert "0.05 seconds or more" in _refused(text)


def test_a_source_interval_of_0_is_that_of_the_host() -> None:
    assert _read("[sources.gpu]\ninterval = 0\n").sources["gpu"].interval == 0


def test_a_syntax_error_names_the_file_and_the_line() -> None:
    told = _refused('[broker]\nurl = "mqtts://me:secret@far\n')
    assert told.startswith("my.toml: ")
    assert "line 2" in told
    assert "secret" not in told


def test_a_value_that_may_hold_a_password_is_not_shown() -> None:
    assert "secret" not in _refused('[broker]\nurl = ["mqtts://me:secret@far"]')


def test_a_broker_that_is_named_stands_even_where_it_is_the_default(tmp_path: Any) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "url").write_text("mqtt://127.0.0.1:2000\n")
    assert str(Chosen(settings=_read(), data=tmp_path).broker) == "mqtt://127.0.0.1:2000"
    named = _read(options={"broker": {"url": DEFAULT_BROKER}})
    assert str(Chosen(settings=named, data=tmp_path).broker) == DEFAULT_BROKER


_SCALARS = st.one_of(
    st.text(), st.integers(), st.floats(), st.booleans(), st.just(10**400), st.datetimes(), st.lists(st.integers())
)
_KEYS = st.one_of(st.text(max_size=4), st.sampled_from(["broker", "sources", "deadbands", "intervals", "host", "url"]))
_TABLES = st.dictionaries(_KEYS, st.recursive(_SCALARS, lambda inner: st.dictionaries(_KEYS, inner, max_size=3)))
_LINES = st.sampled_from(
    ["[broker]", "[sources.gpu]", "[[intervals]]", "host = 1", "url = ''", "a.b = {c = 1}", "x = inf", "= 1", "[", '"']
)
_VARIABLES = st.builds("TELEMETRY_{}{}".format, st.sampled_from(["", "SOURCES_", "DEADBANDS_", "BROKER_"]), st.text())


@settings(deadline=None)
@given(
    text=st.one_of(st.text(), st.lists(_LINES).map("\n".join)),
    environ=st.dictionaries(st.one_of(_VARIABLES, st.text()), st.text(), max_size=3),
)
def test_no_text_and_no_environment_does_worse_than_a_usage_error(text: str, environ: dict[str, str]) -> None:
    try:
        _read(text, environ)
    except UsageError as error:
        assert str(error)


@settings(deadline=None)
@given(_TABLES)
def test_no_table_does_worse_than_a_usage_error(table: Table) -> None:
    try:
        _read(options=table)
    except UsageError as error:
        assert str(error)


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000, "a = 2021-02-30", "\x00", "a = 1\na = 2"])
def test_a_text_that_the_reader_of_toml_chokes_on_is_refused_by_file(text: str) -> None:
    assert _refused(text).startswith("my.toml: ")
