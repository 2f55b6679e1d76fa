"""Sets of names: an example is found exactly where there is one."""

from __future__ import annotations

from contextlib import suppress
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheproxy.errors import NameInvalid
from cacheproxy.oci.names import Intricate, Names
from cacheproxy.oci.reference import EVERYTHING, NAME_LENGTH, Pattern, Repository

_LONGEST = 4


def _parsed(text: str) -> Repository | None:
    with suppress(NameInvalid):
        return Repository.parse(text)
    return None


def _texts(letters: str, longest: int) -> list[str]:
    return [
        "".join(each) for size in range(1, longest + 1) for each in product(letters, repeat=size)
    ]


_NAMES = [name for text in _texts("abz/-._", _LONGEST) if (name := _parsed(text)) is not None]
"""All short ones of these letters."""

_PATTERNS = st.lists(st.text("ab*?/[]!-", max_size=5).map(Pattern), max_size=3).map(tuple)


def _has(patterns: tuple[Pattern, ...], name: Repository) -> bool:
    return any(pattern.matches(name) for pattern in patterns)


@given(_PATTERNS, _PATTERNS, _PATTERNS, _PATTERNS)
@settings(max_examples=300, deadline=None)
def test_an_example_is_the_shortest_name_there_is(
    patterns: tuple[Pattern, ...],
    besides: tuple[Pattern, ...],
    within: tuple[Pattern, ...],
    without: tuple[Pattern, ...],
) -> None:
    """Of all that can be made; where none is found there is none."""

    def is_one(name: Repository) -> bool:
        inside = _has(patterns, name) and _has(within, name)
        return inside and not _has(besides, name) and not _has(without, name)

    found = Names(patterns, besides).example(within, without)
    first = next(filter(is_one, _NAMES), None)

    if found is not None:
        assert is_one(Repository.parse(found))
    if first is not None or (found is not None and len(found) <= _LONGEST):
        assert first is not None
        assert found is not None
        assert len(found) == len(first)


@pytest.mark.parametrize(
    ("patterns", "besides", "example"),
    [
        (["*"], [], "a"),
        (["ci/*"], [], "ci/a"),
        (["*"], ["?"], "aa"),
        (["*"], ["*"], None),
        (["*"], ["[a-z]*", "[!a-z]*"], None),
        (["*"], ["[a-z]*"], "0"),
        (["ci/*"], ["c*"], None),
        (["*-*"], [], "a-a"),
        (["CI/*"], [], None),
        (["a/"], [], None),
        (["[]"], [], None),
        (["a[b"], [], None),
        ([], [], None),
        (["?" * NAME_LENGTH], [], "a" * NAME_LENGTH),
        (["?" * NAME_LENGTH + "*?"], [], None),
    ],
)
def test_an_example_is_a_name(patterns: list[str], besides: list[str], example: str | None) -> None:
    """As long as a name may be, and of letters that it may have."""
    names = Names(tuple(map(Pattern, patterns)), tuple(map(Pattern, besides)))

    assert names.example() == example


def test_names_are_what_the_grammar_allows() -> None:
    """Whatever else a pattern matches."""
    for text in _texts("a-_./", 5):
        assert Names((Pattern(text),)).example() == _parsed(text), text


def test_patterns_that_take_too_long_are_given_up() -> None:
    """Here each of the last 40 letters makes a difference."""
    pattern = Pattern("*a" + "?" * 40)

    with pytest.raises(Intricate):
        Names((EVERYTHING,)).example([pattern], [Pattern(pattern + "*")])


def test_many_simple_patterns_are_no_trouble() -> None:
    """What is compared is soon only what has the same beginning."""
    teams = [Pattern(f"team-{number}/*") for number in range(300)]
    ends = [Pattern(f"*/cache-{number}") for number in range(300)]

    assert Names((EVERYTHING,), tuple(teams)).example([Pattern("team-*/*")], ends) == "team-a/a"
    assert Names(tuple(teams)).example(without=[*ends, Pattern("team-*")]) is None
