"""Whatever the wire, the processes, the clocks and the disks do: nothing is lost, nothing stands twice, all converges.

The invariants are those of docs/protocol.md; `make fuzz` tries more.
"""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.aggregator.core import MIRROR_SPACING
from telemetry.aggregator.mirror import MirroredRecord
from telemetry.fields import Owner
from telemetry.topics import AgentKey, Channel
from tests.protocol_model import FIELDS, ModelAggregator, World, changes_of

RUNS = int(os.environ.get("TELEMETRY_FUZZ_RUNS", "25"))

HOSTS = st.integers(0, 1)
COMMON: list[st.SearchStrategy[tuple[Any, ...]]] = [
    st.tuples(st.just("change"), HOSTS, st.sampled_from(FIELDS), st.integers(0, 9)),
    st.tuples(st.just("lose field"), HOSTS, st.sampled_from(FIELDS)),
    st.tuples(st.just("step"), st.sampled_from([0.5, 1.0, 3.0, 20.0, 100.0])),
    st.tuples(st.just("step"), st.sampled_from([1.0, 1.0, 2.0])),
    st.tuples(
        st.just("wire"), st.sampled_from([0.0, 0.2, 0.7]), st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 1.0])
    ),
    st.tuples(st.just("kill agent"), HOSTS),
    st.tuples(st.just("start agent"), HOSTS),
    st.tuples(st.just("disconnect"), HOSTS),
    st.tuples(st.just("clock"), HOSTS, st.sampled_from([-86_400_000, -1000, 1000, 86_400_000])),
    st.tuples(st.just("kill broker"), st.booleans()),
    st.tuples(st.just("start broker")),
    st.tuples(st.just("kill aggregator")),
    st.tuples(st.just("die before commit")),
    st.tuples(st.just("start aggregator")),
    st.tuples(st.just("subscriber")),
]
SPOOL_LOST: list[st.SearchStrategy[tuple[Any, ...]]] = [st.tuples(st.just("lose spool"), HOSTS)]
DATABASE: list[st.SearchStrategy[tuple[Any, ...]]] = [
    st.tuples(st.just("save")), st.tuples(st.just("restore")), st.tuples(st.just("lose database")),
]  # fmt: skip


def _do(world: World, act: tuple[Any, ...]) -> None:  # noqa: C901, PLR0912  # a table of faults
    aggregator = world.aggregators[0]
    match act:
        case ("change", host, name, value):
            world.agents[host].values[name] = value
            world.agents[host].sample()
        case ("lose field", host, name):
            world.agents[host].values.pop(name, None)
            world.agents[host].sample()
        case ("step", seconds):
            world.step(seconds)
        case ("wire", drop, repeat, resend):
            world.drop, world.repeat, world.resend = drop, repeat, resend
        case ("kill agent", host):
            world.agents[host].kill()
        case ("start agent", host) if world.agents[host].publisher is None:
            world.agents[host].start()
        case ("disconnect", host):
            world.agents[host].disconnect()
        case ("clock", host, offset):
            world.agents[host].clock_offset += offset
        case ("lose spool", host):
            world.agents[host].lose_spool()
        case ("kill broker", keeps):
            world.kill_broker(keeps_retained=keeps)
        case ("start broker",):
            world.start_broker()
        case ("kill aggregator",):
            aggregator.kill()
        case ("die before commit",):
            aggregator.tick(dies=True)
        case ("start aggregator",) if aggregator.core is None:
            aggregator.start()
        case ("save",):
            aggregator.save()
        case ("restore",):
            aggregator.restore()
        case ("lose database",):
            aggregator.lose_database()
        case ("subscriber",):
            world.subscribers = [*world.subscribers[-1:], type(world.subscribers[0])(world)]


def _run(world: World, acts: list[tuple[Any, ...]]) -> None:
    for act in acts:
        _do(world, act)
    world.settle()


def _require_converged(world: World) -> None:
    for agent in world.agents:
        assert agent.publisher is not None
        told = dict(agent.publisher.own.values.taken)
        assert told == agent.values
        for aggregator in world.aggregators:
            held = MirroredRecord(agent.key.record, aggregator.stored.records[agent.key.record]).held(Owner.HARDWARE)
            assert {name: one.value for name, one in held.items() if one.value is not None} == told
        for subscriber in world.subscribers:
            copied = subscriber.copies[agent.key.record]
            assert copied.is_whole
            assert {name: copied.fields[name] for name in FIELDS if name in copied.fields} == told


def _require_silence(world: World) -> None:
    before = dict(world.counts)
    world.settle(1800)
    after = world.counts
    for channel in (Channel.REQUEST, Channel.BACKLOG, Channel.RESUBSCRIBE):
        assert after[channel] == before.get(channel, 0), channel


def _history(aggregator: ModelAggregator, key: AgentKey) -> list[Any]:
    return [position for agent, position in aggregator.history if agent == key]


FUZZ = settings(max_examples=RUNS, deadline=None, suppress_health_check=list(HealthCheck))


@FUZZ
@given(st.integers(0, 2**32), st.lists(st.one_of(COMMON), max_size=60))
def test_every_reported_change_stands_in_the_history_exactly_once(seed: int, acts: list[tuple[Any, ...]]) -> None:
    world = World(seed=seed)
    _run(world, acts)
    _require_converged(world)
    for agent in world.agents:
        held = _history(world.aggregators[0], agent.key)
        assert len(held) == len(set(held)), "one stands twice"
        assert set(held) == changes_of(agent.written)
        stored = world.aggregators[0].stored.agents[agent.key]
        assert stored.lost == 0
    _require_silence(world)


@FUZZ
@given(st.integers(0, 2**32), st.lists(st.one_of(COMMON + SPOOL_LOST + DATABASE), max_size=60))
def test_all_converges_whatever_is_lost_and_nothing_stands_twice(seed: int, acts: list[tuple[Any, ...]]) -> None:
    world = World(seed=seed)
    _run(world, acts)
    _require_converged(world)
    for agent in world.agents:
        held = _history(world.aggregators[0], agent.key)
        assert len(held) == len(set(held)), "one stands twice"
        assert set(held) <= changes_of(agent.written)
    _require_silence(world)


@FUZZ
@given(st.integers(0, 2**32), st.lists(st.one_of(COMMON), max_size=60))
def test_a_spool_that_overflows_loses_what_is_counted(seed: int, acts: list[tuple[Any, ...]]) -> None:
    world = World(seed=seed, spool_bytes=600)
    _run(world, acts)
    _require_converged(world)
    for agent in world.agents:
        held = set(_history(world.aggregators[0], agent.key))
        stored = world.aggregators[0].stored.agents[agent.key]
        missing = {position for position in agent.written if position.epoch == stored.log.epoch} - held
        silent = {position for position in agent.written if position not in changes_of(agent.written)}
        assert len(missing - silent) <= stored.lost
    _require_silence(world)


@FUZZ
@given(st.integers(0, 2**32), st.sampled_from([20.0, 50.0, 200.0]), st.lists(st.one_of(COMMON), max_size=60))
def test_who_states_more_than_is_taken_at_once_loses_nothing(
    seed: int, rate: float, acts: list[tuple[Any, ...]]
) -> None:
    world = World(seed=seed, rate=rate)
    _run(world, acts)
    _require_converged(world)
    for agent in world.agents:
        held = _history(world.aggregators[0], agent.key)
        assert len(held) == len(set(held)), "one stands twice"
        assert set(held) == changes_of(agent.written)
        assert world.aggregators[0].stored.agents[agent.key].lost == 0
    _require_silence(world)


@FUZZ
@given(st.integers(0, 2**32), st.lists(st.one_of(COMMON), max_size=50))
def test_two_aggregators_hold_the_same(seed: int, acts: list[tuple[Any, ...]]) -> None:
    world = World(seed=seed, aggregators=("main", "second"))
    _run(world, acts)
    _require_converged(world)
    for agent in world.agents:
        for aggregator in world.aggregators:
            held = _history(aggregator, agent.key)
            assert len(held) == len(set(held)), "one stands twice"
            assert set(held) == changes_of(agent.written)
    _require_silence(world)


@pytest.mark.parametrize("seed", range(3))
def test_a_day_without_a_broker_is_in_the_history_once_there_is_one(seed: int) -> None:
    world = World(seed=seed, agents=1)
    world.kill_broker(keeps_retained=True)
    agent = world.agents[0]
    for minute in range(24 * 60):
        agent.values["diskR"] = minute
        agent.sample()
        world.step(60)
    world.start_broker()
    world.step(1)
    world.step(1)
    world.step(MIRROR_SPACING)
    mirrored = MirroredRecord(agent.key.record, world.aggregators[0].stored.records[agent.key.record])
    assert mirrored.held(Owner.HARDWARE)["diskR"].value == 24 * 60 - 1, "what is now is right at once"
    world.settle(600)
    assert set(_history(world.aggregators[0], agent.key)) == changes_of(agent.written)
    assert len(changes_of(agent.written)) > 24 * 60
