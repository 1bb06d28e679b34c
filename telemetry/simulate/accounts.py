"""Who is who on the chain, and what they own."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from telemetry.simulate.sealing import DEPOSITED
from telemetry.simulate.values import FIL
from telemetry.simulate.world import EPOCH_SECONDS, GENESIS, World

SECTOR_BYTES = 32 << 30
MINER, OWNER, WORKER, POST, COMMIT = "f01234", "f0100", "f0101", "f01235", "f01236"


def _key(address: str) -> str:
    digest = blake2b(address.encode(), digest_size=52).digest()
    return "f3" + base64.b32encode(digest).decode().lower().rstrip("=")


ROBUST: Mapping[str, str] = {
    OWNER: _key(OWNER),
    WORKER: _key(WORKER),
    POST: _key(POST),
    COMMIT: _key(COMMIT),
    MINER: "f2" + _key(MINER)[2:41],
}
"""The address that does not depend on the chain, by id address."""

_IDS = {robust: address for address, robust in ROBUST.items()} | {address: address for address in ROBUST}

_FIRST = {OWNER: 12 * FIL, WORKER: 34_359 * FIL // 1000, POST: 55 * FIL, COMMIT: 21 * FIL}


def id_of(address: str) -> str | None:
    """The id address of an account, None for an unknown one. The letter of the network is no part of it."""
    return _IDS.get("f" + address[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Purse:
    """What the miner owns, in attoFIL."""

    pledge: int
    deposits: int
    vesting: int
    available: int
    """What `lotus-miner info` calls available."""
    vested: int
    """What has vested and is not unlocked yet."""
    debt: int

    @property
    def balance(self) -> int:
        """All of it."""
        return self.pledge + self.deposits + self.vesting + self.available + self.debt


def purse(world: World) -> Purse:
    """What the miner owns now."""
    epochs = world.height - int((world.origin - GENESIS) // EPOCH_SECONDS)
    unlocked = min(epochs * FIL // 10_000, 150 * FIL)
    return Purse(
        pledge=len(world.live) * FIL * 15 // 100,
        deposits=sum(world.states[state] for state in DEPOSITED) * FIL * 98 // 1000,
        vesting=155_325 * FIL // 1000 - unlocked,
        available=2_864_733 * FIL // 1000 + unlocked,
        vested=world.height % 60 * FIL // 10_000,
        debt=world.fee_debt,
    )


def balance(world: World, address: str) -> int:
    """What an account owns; nothing when there is none."""
    account = id_of(address)
    if account == MINER:
        return purse(world).balance
    if account is None:
        return 0
    # Gas goes, and what is spent is filled up again.
    spent = world.messages * FIL // 200 if account in {WORKER, COMMIT} else 0
    return _FIRST[account] - spent % (20 * FIL)
