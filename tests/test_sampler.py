"""A round of samples belongs to one worker at a time."""

from telemetry.agent.sampler import Sampled, Samples, _Round
from telemetry.sources import Reading, Source


class _Named:
    fields = ()
    host_fields = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def sample(self) -> Reading:
        return Reading(values={})


def _sample(source: Source) -> Sampled:
    return Sampled(source, 0, source.sample())


def _names(samples: Samples) -> list[str]:
    return [sampled.source.name for sampled in samples]


def test_a_worker_that_begins_after_its_round_was_passed_on_takes_nothing_of_it() -> None:
    late: list[Samples] = []
    one = _Round([_Named("a"), _Named("b")], _sample, late.append)
    owner = one.pass_on()
    assert owner is not None
    assert not one.work(0), "the first worker is not needed any more"
    assert one.work(owner)
    assert _names(one.samples) == ["a", "b"]
    assert late == []


def test_what_held_up_the_others_is_delivered_alone_and_the_rest_by_the_next_worker() -> None:
    late: list[Samples] = []
    owners: list[int | None] = []

    def sample(source: Source) -> Sampled:
        if source.name == "slow":
            owners.append(one.pass_on())
        return _sample(source)

    one = _Round([_Named("slow"), _Named("b")], sample, late.append)
    assert not one.work(0)
    [owner] = owners
    assert owner is not None
    assert one.work(owner)
    assert _names(one.samples) == ["b"]
    assert [_names(samples) for samples in late] == [["slow"]]
    assert one.pass_on() is None, "it is done"
