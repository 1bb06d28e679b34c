import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from telemetry.fields import fits
from telemetry.records import WORKER_INFO
from tests.nvml_library import (
    DRIVER_NOT_LOADED,
    LIB_RM_VERSION_MISMATCH,
    NOT_SUPPORTED,
    UNKNOWN,
    FakeCard,
    FakeNvml,
    build_nvml,
)

# One sample for each line that comes in, which tells how many seconds have passed since the last one.
_SAMPLER = """
import json, sys
from telemetry.errors import SourceError
from telemetry.sources.gpu import Gpu

now = 0.0
gpu = Gpu(clock=lambda: now)
for line in sys.stdin:
    now += float(line)
    try:
        reading = gpu.sample()
        answer = {"values": reading.values, "problems": reading.problems, "error": ""}
    except SourceError as error:
        answer = {"values": {}, "problems": {}, "error": str(error)}
    print(json.dumps(answer | {"pynvml": "pynvml" in sys.modules}), flush=True)
"""

# Ends while a sample hangs in the call that is named in the arguments; prints whether it still does.
_ABANDONING = """
import sys, threading
from pathlib import Path
from telemetry.sources.gpu import Gpu

calls, call = Path(sys.argv[1]), sys.argv[2]
thread = threading.Thread(target=Gpu().sample, daemon=True)
thread.start()
while not calls.exists() or call not in calls.read_text().splitlines():
    thread.join(0.01)
    assert thread.is_alive()
thread.join(0.1)
print(thread.is_alive())
"""

_GIB = 1024**3
EIGHT = tuple(
    FakeCard(temperature=40 + index, utilization=10 * index, used=index * _GIB, power=100_060 + index)
    for index in range(8)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One sample, as the process printed it."""

    values: Mapping[str, Any]
    problems: Mapping[str, str]
    error: str
    pynvml: bool

    @property
    def indexes(self) -> list[int]:
        return [card["index"] for card in self.values["gpuInfo"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """A process that holds one Gpu."""

    process: "subprocess.Popen[str]"

    def sample(self, *, after: float = 5.0) -> Answer:
        """Sample once, `after` seconds on the process's clock since the last time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{after}\n")
        self.process.stdin.flush()
        return Answer(**json.loads(self.process.stdout.readline()))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml(tmp_path: Path) -> FakeNvml:
    return FakeNvml(path=tmp_path / "cards")


@contextmanager
def sampling(nvml: FakeNvml, library: Path) -> Iterator[Sampler]:
    with subprocess.Popen(
        [sys.executable, "-c", _SAMPLER],
        env=nvml.environment(library),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Sampler(process=process)


@pytest.fixture
def sampler(nvml: FakeNvml, library: Path) -> Iterator[Sampler]:
    with sampling(nvml, library) as process:
        yield process


def test_eight_cards_are_read_in_the_order_of_nvml(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT)
    answer = sampler.sample()
    assert answer.values == {
        "gpuInfo": [card.values(index) for index, card in enumerate(EIGHT)],
        "gpuTemper": 47,
        "gpuLoad": 35.0,
        "gpuMemory": 28 * _GIB,
    }
    assert answer.problems == {}


def test_all_fields_have_their_declared_types(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT)
    values = sampler.sample().values
    assert [name for name, value in values.items() if not fits(WORKER_INFO.by_name[name].type, value)] == []


def test_power_is_in_watts_with_one_decimal(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write((FakeCard(power=215_449),))
    assert sampler.sample().values["gpuInfo"][0]["power"] == 215.4


def test_memory_beyond_32_bits_is_exact(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write((FakeCard(used=150_754_820_097, total=150_754_820_098),) * 2)
    assert sampler.sample().values["gpuMemory"] == 301_509_640_194


def test_a_driver_without_cards_gives_an_empty_list_and_no_problem(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(())
    answer = sampler.sample()
    assert (answer.values, answer.problems) == ({"gpuInfo": []}, {})


def test_a_lost_card_is_reported_and_the_others_stand(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT)
    sampler.sample()
    nvml.write(EIGHT, "lost 3")
    answer = sampler.sample()
    assert answer.indexes == [0, 1, 2, 4, 5, 6, 7]
    assert answer.problems == {"gpuInfo": "GPU 3: GPU is lost"}
    assert answer.values["gpuMemory"] == 25 * _GIB


def test_a_card_that_nvml_cannot_open_is_reported_and_the_others_stand(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT, f"fail handle 0 {UNKNOWN}", "lost 7")
    answer = sampler.sample()
    assert answer.indexes == [1, 2, 3, 4, 5, 6]
    assert answer.problems == {"gpuInfo": "GPU 0: Unknown Error; GPU 7: GPU is lost"}


def test_a_card_that_comes_back_is_read_again(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT, "lost 3")
    sampler.sample()
    nvml.write(EIGHT)
    answer = sampler.sample()
    assert answer.indexes == list(range(8))
    assert answer.problems == {}


def test_a_lost_card_lets_nvml_be_initialised_again_at_the_next_sample(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT, "lost 3")
    sampler.sample()
    sampler.sample()
    assert [call for call in nvml.calls() if call in {"init", "shutdown"}] == ["init", "shutdown", "init"]


def test_a_card_that_stays_lost_renews_nvml_once_in_ten_minutes(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT, "lost 3")
    for _ in range(121):
        sampler.sample(after=5.0)
    assert nvml.calls().count("init") == 2
    sampler.sample()
    assert nvml.calls().count("init") == 3


def test_when_no_card_answers_the_sample_fails_with_the_reasons(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT[:2], "lost 0", "lost 1")
    assert sampler.sample().error == "GPU 0: GPU is lost; GPU 1: GPU is lost"


def test_a_member_that_a_card_does_not_support_is_left_out_of_it_alone(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT[:3], f"fail power 2 {NOT_SUPPORTED}", f"fail uuid 1 {NOT_SUPPORTED}")
    answer = sampler.sample()
    assert [sorted(EIGHT[0].values(0).keys() - card.keys()) for card in answer.values["gpuInfo"]] == [
        [],
        ["uuid"],
        ["power"],
    ]
    assert answer.problems == {}
    assert fits(WORKER_INFO.by_name["gpuInfo"].type, answer.values["gpuInfo"])


def test_a_call_that_fails_is_left_out_and_told(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT[:2], f"fail memory 1 {UNKNOWN}")
    answer = sampler.sample()
    assert answer.problems == {"gpuInfo": "GPU 1: memory: Unknown Error"}
    assert not answer.values["gpuInfo"][1].keys() & {"useMemory", "totalMemory"}


def test_a_name_that_could_not_be_read_is_asked_for_again(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT[:1], f"fail name 0 {UNKNOWN}")
    assert "name" not in sampler.sample().values["gpuInfo"][0]
    nvml.write(EIGHT[:1])
    assert sampler.sample().values["gpuInfo"] == [EIGHT[0].values(0)]


def test_a_code_that_pynvml_does_not_know_is_told_in_the_words_of_the_library(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT[:2], "fail power 0 777")
    assert sampler.sample().problems == {"gpuInfo": "GPU 0: power: NVML's text for 777"}


def test_a_flat_number_that_no_card_gives_is_absent_with_its_reason(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT[:2], *(f"fail temperature {index} {NOT_SUPPORTED}" for index in range(2)))
    answer = sampler.sample()
    assert answer.problems == {"gpuTemper": "no card gives its temper"}
    assert sorted(answer.values) == ["gpuInfo", "gpuLoad", "gpuMemory"]


def test_names_and_uuids_are_asked_for_once(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT[:1])
    sampler.sample()
    before = len(nvml.calls())
    sampler.sample()
    assert nvml.calls()[before:] == ["count", "temperature 0", "utilization 0", "memory 0", "power 0"]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (DRIVER_NOT_LOADED, "NVML: Driver Not Loaded"),
        (LIB_RM_VERSION_MISMATCH, "NVML: RM has detected an NVML/RM version mismatch."),
    ],
)
def test_an_initialisation_that_fails_is_one_line(nvml: FakeNvml, sampler: Sampler, code: int, text: str) -> None:
    nvml.write(EIGHT, f"init_error {code}")
    assert sampler.sample().error == text


def test_a_driver_that_comes_after_the_start_is_used_at_the_next_sample(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT, f"init_error {DRIVER_NOT_LOADED}")
    assert sampler.sample().error
    nvml.write(EIGHT)
    assert sampler.sample().indexes == list(range(8))


def test_a_driver_that_is_loaded_again_costs_one_sample(nvml: FakeNvml, sampler: Sampler) -> None:
    nvml.write(EIGHT)
    sampler.sample()
    nvml.write(EIGHT, "driver 2")
    assert sampler.sample().error == "NVML: Uninitialized"
    assert sampler.sample().indexes == list(range(8))


def test_a_call_that_hangs_holds_its_thread_but_not_the_end_of_the_process(nvml: FakeNvml, library: Path) -> None:
    nvml.write(EIGHT, "hang temperature 5")
    ended = subprocess.run(
        [sys.executable, "-c", _ABANDONING, f"{nvml.path}.calls", "temperature 5"],
        env=nvml.environment(library),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr


def test_a_host_without_the_library_has_no_cards_and_never_loads_pynvml(nvml: FakeNvml, tmp_path: Path) -> None:
    with sampling(nvml, tmp_path / "libnvidia-ml.so.1") as sampler:
        answer = sampler.sample()
    assert answer == Answer(values={}, problems={}, error="", pynvml=False)


def test_the_library_is_looked_for_again_after_ten_minutes(nvml: FakeNvml, library: Path, tmp_path: Path) -> None:
    nvml.write(EIGHT)
    installed = tmp_path / "libnvidia-ml.so.1"
    with sampling(nvml, installed) as sampler:
        sampler.sample()
        installed.symlink_to(library)
        assert sampler.sample(after=599.0).values == {}
        assert sampler.sample(after=1.0).indexes == list(range(8))
