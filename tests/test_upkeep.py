"""What is done beside requests."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cacheproxy.upkeep import Turns


async def test_one_worker_at_a_time_has_a_collector(tmp_path: Path) -> None:
    """Another one looks again later."""
    one, other = Turns(str(tmp_path / "turn")), Turns(str(tmp_path / "turn"))
    async with one.take() as ours:
        assert ours
        async with other.take() as theirs:
            assert not theirs
    async with other.take() as theirs:
        assert theirs


async def test_namespaces_of_a_worker_wait_for_each_other() -> None:
    """All of them are to be collected now."""
    turns = Turns()
    taken: list[str] = []

    async def collect(namespace: str) -> None:
        async with turns.take() as ours:
            assert ours
            taken.append(f"{namespace} begins")
            await asyncio.sleep(0)
            taken.append(f"{namespace} ends")

    await asyncio.gather(collect("one"), collect("other"))
    assert taken == ["one begins", "one ends", "other begins", "other ends"]
