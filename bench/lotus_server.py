"""A simulated Lotus that stands still while its queues are polled, and tells which hosts' queues each poll has changed.

A second reader, by the agent's own source, reads the same still world after each poll: what it finds different from its
last reading is what an agent has to publish, and nothing else. Prints a JSON object a line: first the variables by
which the Lotus is found, then a `Poll` each.
"""

import argparse
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import orjson

from telemetry.agent.plans import miner_plans
from telemetry.config import read_settings
from telemetry.fields import Value
from telemetry.simulate.accounts import MINER
from telemetry.simulate.lotus import Lotus, SteppedClock
from telemetry.simulate.scenario import SCENARIOS

Hosts: TypeAlias = Mapping[str, Mapping[str, Value]]

_LAST_CALL = "SealingSchedDiag"
"""The method that ends a poll of the queues."""

_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """One poll: when its last call was seen (Unix ms), how many hosts there were, and whose queues had changed."""

    seen: int
    hosts: int
    changed: tuple[str, ...]


def main() -> None:
    """Serve until ended."""
    arguments = _parser().parse_args()
    settings = read_settings(text=arguments.config.read_text(), environ={}, options={})
    clock = SteppedClock(time.time())
    with Lotus(arguments.scenario, clock=clock) as lotus:
        plans = {plan.source.name: plan for plan in miner_plans(settings, MINER, lotus.environment)}
        reader = plans["queues"].source
        known: Hosts = {}
        _print(dict(lotus.environment))
        for step in arguments.steps:
            seen = _await_poll(lotus)
            hosts = reader.sample().hosts or {}
            if lotus.miner.calls[_LAST_CALL] != 2:
                sys.exit("polled again before the last poll was read: the machine is too busy to measure")
            changed = _changed(known, hosts)
            known = hosts
            lotus.miner.forget_calls()
            clock.advance(step)
            _print(Poll(seen=seen, hosts=len(hosts), changed=changed))
        signal.pause()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--config", type=Path, required=True, help="the agent's settings")
    parser.add_argument("--steps", type=float, nargs="+", help="seconds by which the world goes on after each poll")
    return parser


def _await_poll(lotus: Lotus) -> int:
    """Wait for the last call of a poll; Unix ms."""
    while not lotus.miner.calls[_LAST_CALL]:
        time.sleep(_LOOK_SECONDS)
    return time.time_ns() // 1_000_000


def _changed(known: Hosts, hosts: Hosts) -> tuple[str, ...]:
    """The hosts with another value in any field than before."""
    return tuple(host for host in sorted(hosts.keys() | known.keys()) if hosts.get(host) != known.get(host))


def _print(line: object) -> None:
    print(orjson.dumps(line).decode(), flush=True)


if __name__ == "__main__":
    main()
