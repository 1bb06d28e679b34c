"""A round of samples belongs to one worker at a time."""

import queue
from dataclasses import replace

from telemetry.agent.plans import retimed
from telemetry.agent.sampler import Plan, Sampled, Sampler, Samples, _Round
from telemetry.config import read_settings
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


def test_sources_that_are_sampled_at_other_intervals_stay_the_same_and_come_no_later() -> None:
    source = _Named("disks")
    # What a miner's source has besides stays in proportion to how often Lotus is looked at.
    retry = Plan(source=_Named("queues"), interval=30, deadline=9, second=30, retry=30)
    plans = [Plan(source=source, interval=60, deadline=7), retry]
    settings = read_settings(
        text="[intervals]\nqueues = 5\n[sources.disks]\ninterval = 2\ndeadline = 1\n", environ={}, options={}
    )
    disks, queues = retimed(plans, settings)
    assert disks.source is source
    assert (disks.interval, disks.deadline, disks.tick) == (2, 7, 2)
    assert (queues.interval, queues.retry, queues.tick) == (5, 5, 5)

    taken: queue.SimpleQueue[Samples] = queue.SimpleQueue()
    sampler = Sampler(plans, taken.put)
    sampler.start()
    seen = [name for _ in range(2) for name in _names(taken.get(timeout=10))]
    assert sorted(set(seen)) == ["disks", "queues"]
    sampler.retime([replace(disks, interval=0.05), queues])
    while seen.count("disks") < 10:
        seen += _names(taken.get(timeout=10))
    sampler.stop()
