"""Trying again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import Unavailable
from cacheproxy.storage.s3.retry import Attempt, Passing, persist, wait_seconds


class _Attempts:
    """Fails as told, then gives how many attempts it took."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.seen: list[Attempt] = []

    async def __call__(self, attempt: Attempt) -> int:
        self.seen.append(attempt)
        if self._failures:
            raise self._failures.pop(0)
        return len(self.seen)


async def test_what_passes_is_tried_until_it_has_passed() -> None:
    """Each attempt knows how many there were and how much time is left."""
    attempts = _Attempts(Passing("once"), Passing("twice"))

    assert await persist(attempts, 5) == 3
    assert [each.before for each in attempts.seen] == [0, 1, 2]
    assert 5 >= attempts.seen[0].seconds > attempts.seen[1].seconds > attempts.seen[2].seconds


async def test_what_does_not_pass_is_not_tried_again() -> None:
    """A denied request stays denied."""
    attempts = _Attempts(Unavailable("denied"))
    with pytest.raises(Unavailable, match="denied"):
        await persist(attempts, 5)
    assert len(attempts.seen) == 1


async def test_the_last_failure_is_told_when_time_is_over() -> None:
    """And no wait begins that would not end in time."""
    attempts = _Attempts(*[Passing(str(number)) for number in range(100)])
    with pytest.raises(Unavailable):
        await persist(attempts, 0.01)
    assert len(attempts.seen) == 1


async def test_an_attempt_that_was_cut_short_hides_no_reason() -> None:
    """What was the matter is what the one before it has found."""
    cut = Passing("not in time")
    cut.__cause__ = TimeoutError()
    attempts = _Attempts(Passing("refused"), *[cut] * 100)
    with pytest.raises(Unavailable, match="refused"):
        await persist(attempts, 0.2)
    assert len(attempts.seen) > 1


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_waits_grow_to_a_limit(before: int, chance: float) -> None:
    """They are spread by a half, and never shrink below what came twice before."""
    assert 0.025 <= wait_seconds(before, chance) <= 5
    assert wait_seconds(before + 1, 1) >= wait_seconds(before, chance)
