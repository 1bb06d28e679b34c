"""Times as a person writes them: relative, local or with an offset, and never a traceback."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from telemetry.cli import main
from telemetry.errors import UsageError
from telemetry.times import is_time, parse_span, parse_time

NOW = 1_795_800_000_123
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@pytest.fixture
def shanghai() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Shanghai"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@given(st.lists(st.tuples(st.integers(1, 999), st.sampled_from(sorted(_SECONDS))), min_size=1, max_size=4))
def test_a_span_is_the_sum_of_its_parts_and_a_time_lies_so_long_before_now(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    span = 1000 * sum(number * _SECONDS[unit] for number, unit in parts)
    assert parse_span(text) == span
    assume(span <= NOW)  # no time is before 1970
    assert parse_time(f"-{text}", NOW) == NOW - span


_MOMENTS = st.datetimes(datetime(1975, 1, 1), datetime(2900, 1, 1))  # noqa: DTZ001  # its offset is drawn too
_OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(_MOMENTS, _OFFSETS, st.sampled_from(["T", " "]), st.sampled_from(["minutes", "seconds", "milliseconds"]))
def test_a_date_with_an_offset_is_that_instant(moment: datetime, zone: timezone, separator: str, to: str) -> None:
    text = moment.replace(tzinfo=zone).isoformat(separator, to)
    assert parse_time(text, NOW) == round(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000)


def test_what_has_no_offset_is_local_time_and_a_date_is_its_first_moment(shanghai: None) -> None:  # noqa: ARG001
    assert parse_time("2026-11-23T10:00", NOW) == parse_time("2026-11-23T10:00+08:00", NOW)
    assert parse_time("2026-11-23", NOW) == parse_time("2026-11-22T16:00Z", NOW) == 1_795_363_200_000
    assert parse_time("now", NOW) == NOW


@given(st.one_of(st.text(max_size=30), st.from_regex(r"-?[0-9]{0,20}[smhdw:.TZ+ -]{0,5}[0-9]{0,9}", fullmatch=True)))
def test_anything_else_is_refused_in_one_line_with_examples(text: str) -> None:
    if is_time(text, NOW):
        assert 0 <= parse_time(text, NOW) < 2**53
        return
    with pytest.raises(UsageError, match=r"is no time: expected one such as -1h, now, 2026-11-23"):
        parse_time(text, NOW)


@pytest.mark.parametrize("text", ["", "5", "h", "-5m", "0s", "5 m", "1y", "1e3s"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no length of time"):
        parse_span(text)


@pytest.mark.parametrize(
    "words",
    [
        ["at", "-1h", "f01234", "seal01"],
        ["at", "f01234/seal01", "-1h"],  # the wrong way round
        ["diff", "-1h30m", "-90s", "f01234"],
        ["history", "f01234", "seal01", "cpuLoad", "--since", "-1.5h", "--until", "-90s"],
        ["events", "--since", "-2d"],
        ["export", "--since=-1w", "--step", "5m"],
    ],
)
def test_a_time_may_begin_with_a_dash_wherever_one_stands(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    assert main([*words, "--database", f"{tmp_path}/none.db"]) == 2
    error = capsys.readouterr().err
    if words[1] == "f01234/seal01":
        assert "miner id '-1h'" in error
    else:
        assert "no database at" in error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--since", "yesterday"], "'yesterday' is no time"),
        (["--since", "-1h", "--until", "-2h"], "--since -1h is not before --until -2h"),
        (["--since", "9999-12-31T23:59:59-14:00"], "is no time"),
    ],
)
def test_a_range_that_is_none_is_told_in_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["events", *words]) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.err.count("\n") == 1
