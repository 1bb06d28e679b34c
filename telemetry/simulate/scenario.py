"""Stories that a simulated Lotus lives through, by the seconds of its world."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from telemetry.simulate.faults import Faults
from telemetry.simulate.versions import VERSIONS
from telemetry.simulate.world import LARGE, Size, World

Role = Literal["miner", "full"]

_USUAL = Size()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happens in the world."""

    at: float
    act: Callable[[World], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A time in which a role answers wrongly."""

    at: float
    seconds: float
    role: Role
    faults: Faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A world at its beginning, and what comes to pass in it."""

    description: str
    size: Size = _USUAL
    events: tuple[Event, ...] = ()
    outages: tuple[Outage, ...] = ()
    every: float = 3600.0
    """After so many seconds all of it comes to pass again."""
    failure_rate: float = 0.0

    def world(self, *, start: float, seed: int = 0, version: str = VERSIONS[-1], speed: float = 1.0) -> World:
        """The world, with all that will come."""
        rate = self.failure_rate
        world = World(start=start, seed=seed, size=self.size, version=version, speed=speed, failure_rate=rate)
        for event in self.events:
            world.at(event.at, partial(self._happen, world, event, event.at))
        return world

    def _happen(self, world: World, event: Event, at: float) -> None:
        event.act(world)
        again = at + self.every
        world.at(again, partial(self._happen, world, event, again))

    def faults(self, role: Role, age: float) -> Faults:
        """What a role does wrong when the world is so many of its seconds old."""
        found = (outage.faults for outage in self._in_force(age) if outage.role == role)
        return next(found, Faults())

    def _in_force(self, age: float) -> Iterator[Outage]:
        since = age % self.every
        return (outage for outage in self.outages if outage.at <= since < outage.at + outage.seconds)


# A host may have lost its workers already, by another event: then nothing happens to it.


def _lose(hostname: str, world: World) -> None:
    for uuid in world.of_host(hostname):
        world.lose(uuid)


def _find(hostname: str, world: World) -> None:
    for uuid in world.of_host(hostname):
        world.find(uuid)


def _restart_workers(hostname: str, world: World) -> None:
    for uuid in world.of_host(hostname):
        world.restart_worker(uuid)


def _leave(hostname: str, world: World) -> None:
    for uuid in world.of_host(hostname):
        world.drop(uuid)


def _join(hostname: str, world: World) -> None:
    if not world.of_host(hostname):
        world.join(hostname, "pc1")
        world.join(hostname, "pc2")


SCENARIOS: Mapping[str, Scenario] = {
    "quiet": Scenario(description="a small miner that goes on undisturbed", size=Size(hosts=2, sealing=12)),
    "busy": Scenario(
        description="full hosts; one comes and goes, one starts anew",
        size=Size(hosts=8, sectors=2000, sealing=260),
        events=(
            Event(at=300, act=partial(_join, "seal99")),
            Event(at=900, act=partial(_restart_workers, "seal02")),
            Event(at=2700, act=partial(_leave, "seal99")),
        ),
    ),
    "restart": Scenario(
        description="the miner starts anew while its hosts are busy",
        size=Size(hosts=4, sectors=500, sealing=90),
        events=(Event(at=120, act=World.restart_miner),),
        outages=(Outage(at=120, seconds=20, role="miner", faults=Faults(refuse=True)),),
        every=6 * 3600.0,
    ),
    "trouble": Scenario(
        description="tasks fail, sectors are faulty, hosts are lost, the chain stops, Lotus answers wrongly",
        size=Size(hosts=4, sectors=800, sealing=90),
        failure_rate=0.05,
        events=(
            Event(at=60, act=lambda world: world.fail_sealing(3)),
            Event(at=120, act=partial(_lose, "seal02")),
            Event(at=180, act=lambda world: world.fault(25)),
            Event(at=240, act=World.stop_chain),
            Event(at=600, act=World.resume_chain),
            Event(at=900, act=partial(_find, "seal02")),
            Event(at=1200, act=lambda world: world.declare_recovered(20)),
            Event(at=1500, act=lambda world: world.remove(2)),
            Event(at=2400, act=World.restart_miner),
        ),
        outages=(
            Outage(at=300, seconds=60, role="miner", faults=Faults(slow=3.0)),
            Outage(at=480, seconds=60, role="full", faults=Faults(html=True)),
            Outage(at=660, seconds=60, role="miner", faults=Faults(hang=True, only=frozenset({"WorkerStats"}))),
            Outage(at=1000, seconds=60, role="full", faults=Faults(refuse=True)),
            Outage(at=1800, seconds=60, role="miner", faults=Faults(unauthorized=True)),
            Outage(at=2400, seconds=30, role="miner", faults=Faults(refuse=True)),
        ),
    ),
    "large": Scenario(description="1,000 workers with 20 jobs each, 100,000 sectors", size=LARGE),
}
