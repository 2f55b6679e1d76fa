"""What bodies read ahead."""

from __future__ import annotations

from contextlib import ExitStack

from cacheproxy.storage.read_ahead import ReadAhead


def test_many_bodies_share_what_is_there_for_all() -> None:
    """One does not get all of it, and who leaves makes room."""
    ahead = ReadAhead()
    with ExitStack() as stack:
        shares = [stack.enter_context(ahead.share()) for _ in range(200)]

        assert max(shares) == shares[0] == 1 << 20
        assert sum(shares) < 64 << 20
        assert 0 < shares[-1] < shares[0]
    with ahead.share() as share:
        assert share == shares[0]
