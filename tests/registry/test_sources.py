"""Which exports to a tag are its sources."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.oci.reference import Pattern, Repository
from cacheproxy.registry.sources import Source, Window, Windows, pushed, used

_TIMES = st.integers(0, 60)
_DIGESTS = st.sampled_from("abcdefgh")
_SOURCES = st.lists(
    st.builds(Source, _DIGESTS, _TIMES, _TIMES, _TIMES), unique_by=lambda source: source.digest
)
_WINDOWS = st.builds(Window, st.integers(1, 5), st.integers(1, 30))
_PUSHES = st.lists(st.tuples(_DIGESTS, _TIMES), min_size=1, max_size=20)


@given(_WINDOWS, _SOURCES, _TIMES)
def test_a_window_has_the_latest_sources_that_were_pushed_or_used_in_its_time(
    window: Window, sources: list[Source], now: int
) -> None:
    """So many at most. The latest of all is among them, however old it is."""
    chosen = window.of(sources, now)
    latest = sorted(sources, key=lambda source: (-source.pushed_at, source.digest))
    wanted = [
        source
        for source in latest
        if source is latest[0] or max(source.pushed_at, source.used_at) >= now - window.nanoseconds
    ]

    assert list(chosen) == wanted[: window.sources]


@given(_WINDOWS, _SOURCES, _TIMES)
def test_the_order_in_which_sources_are_written_down_does_not_matter(
    window: Window, sources: list[Source], now: int
) -> None:
    """Their order in the window comes from what is known of them."""
    assert window.of(reversed(sources), now) == window.of(sources, now)


@given(_WINDOWS, _PUSHES)
def test_what_was_just_pushed_is_the_first_in_any_window(
    window: Window, pushes: list[tuple[str, int]]
) -> None:
    """Also if it is pushed by a server whose clock is behind those of others, or in the same
    moment: no push that was acknowledged is lost to an earlier one."""
    sources: tuple[Source, ...] = ()
    for digest, now in pushes:
        sources = window.of(pushed(sources, digest, now), now)

        assert sources[0].digest == digest
        assert len({source.digest for source in sources}) == len(sources) <= window.sources


@given(_PUSHES)
def test_sources_are_in_the_order_of_their_last_pushes(pushes: list[tuple[str, int]]) -> None:
    """Whatever the clocks say."""
    sources: tuple[Source, ...] = ()
    for digest, now in pushes:
        sources = pushed(sources, digest, now)
    order = list(dict.fromkeys(digest for digest, _ in reversed(pushes)))

    assert [source.digest for source in Window(100, 1000).of(sources, 60)] == order


def test_a_source_that_is_pushed_again_is_as_old_as_it_was() -> None:
    """It is the latest again, but was received when it first came."""
    sources = pushed(pushed(pushed((), "a", 10), "b", 20), "a", 30)

    assert Window(2, 100).of(sources, 30) == (Source("a", 10, 30, 30), Source("b", 20, 20, 20))


@given(_SOURCES, st.frozensets(_DIGESTS), _TIMES)
def test_a_use_counts_for_what_was_used_and_nothing_else(
    sources: list[Source], digests: frozenset[str], now: int
) -> None:
    """It takes nothing back that was written down later, and makes no source the latest."""
    for before, after in zip(sources, used(sources, digests, now), strict=True):
        assert after.used_at == (
            max(before.used_at, now) if before.digest in digests else before.used_at
        )
        assert (after.digest, after.received_at, after.pushed_at) == (
            before.digest,
            before.received_at,
            before.pushed_at,
        )


def test_a_used_source_stays_as_long_as_there_is_room() -> None:
    """Use keeps it beyond its time, but not beyond the number of sources."""
    sources = pushed((), "a", 0)
    for now in (50, 100, 150):
        sources = Window(2, 60).of(used(sources, frozenset("a"), now), now)
    sources = pushed(sources, "b", 200)

    assert [source.digest for source in Window(2, 60).of(sources, 210)] == ["b", "a"]
    assert [source.digest for source in Window(2, 60).of(pushed(sources, "c", 205), 210)] == [
        "c",
        "b",
    ]


def test_the_first_pattern_that_matches_a_repository_gives_its_window() -> None:
    """The default is for all others."""
    one, two, other = Window(1, 1), Window(2, 2), Window(3, 3)
    windows = Windows(other, [(Pattern("ci/app"), one), (Pattern("ci/*"), two)])

    found = [windows.of(Repository(name)) for name in ("ci/app", "ci/web", "dev/app")]

    assert found == [one, two, other]
