"""Sets of repository names, as patterns tell them, and examples of what is in them.

There are more names than can be tried. So one is made letter by letter, and of what it is so far
only that is kept which decides how it may go on: where it is in the grammar of names, and where it
can be in the patterns. Names that agree in that are one, and so there is an end.
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from string import ascii_lowercase, digits
from typing import Final

from cacheproxy.oci.reference import EVERYTHING, NAME_LENGTH, Pattern, Repository

_WORD: Final = ascii_lowercase + digits
_LETTERS: Final = {letter: "word" if letter in _WORD else letter for letter in _WORD + "/.-_"}

# Where a name is in the grammar, and where the next letter leads: it may end behind a word.
_GRAMMAR: Final = {
    "begin": {"word": "word"},
    "word": {"word": "word", "/": "begin", ".": "begin", "-": "hyphens", "_": "underscore"},
    "hyphens": {"word": "word", "-": "hyphens"},
    "underscore": {"word": "word", "_": "begin"},
}

# A character of a pattern, or a class of them in brackets, or stars; as fnmatch takes it apart.
_TOKEN: Final = re.compile(r"\*+|\[!?\]?[^\]]*\]|.", re.DOTALL)

# So many different beginnings of names are looked at, which takes less than a second. What people
# write needs some dozens; there are patterns that need 2 to the power of their length.
_BEGINNINGS: Final = 10_000

_State = tuple[str, int, int, int]


class Intricate(Exception):
    """The patterns are too intricate to be compared."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names that one of `patterns` matches, and none of `besides`."""

    patterns: tuple[Pattern, ...]
    besides: tuple[Pattern, ...] = ()

    def example(
        self, within: Sequence[Pattern] = (EVERYTHING,), without: Sequence[Pattern] = ()
    ) -> Repository | None:
        """The shortest name of them that a pattern `within` matches, and none `without`; None if
        there is no such name. Raises Intricate."""
        made = _Made(
            _globs(self.patterns), _globs(tuple(within)), _globs((*self.besides, *without))
        )
        seen = {made.begin}
        waiting = deque([(made.begin, "")])
        while waiting and len(waiting[0][1]) < NAME_LENGTH:
            state, name = waiting.popleft()
            for letter, after in made.after(state):
                if after in seen:
                    continue
                if made.is_one(after):
                    return Repository(name + letter)
                seen.add(after)
                waiting.append((after, name + letter))
            if len(seen) > _BEGINNINGS:
                raise Intricate
        return None


class _Made:
    """Names in the making that `ours` and `theirs` match, and `others` do not."""

    def __init__(self, ours: "_Globs", theirs: "_Globs", others: "_Globs") -> None:
        self.begin: _State = ("begin", ours.begin, theirs.begin, others.begin)
        self._ours = ours
        self._theirs = theirs
        self._others = others
        self._letters = _told_apart(ours, theirs, others)

    def after(self, state: _State) -> Iterator[tuple[str, _State]]:
        """The letters that may come next, if there may be such a name then."""
        place, ours, theirs, others = state
        for letter in self._letters:
            if (
                (to := _GRAMMAR[place].get(_LETTERS[letter]))
                and (a := self._ours.step(ours, letter))
                and (b := self._theirs.step(theirs, letter))
                and not self._others.matches_all(c := self._others.step(others, letter))
            ):
                yield letter, (to, a, b, c)

    def is_one(self, state: _State) -> bool:
        place, ours, theirs, others = state
        matched = self._ours.ends(ours) and self._theirs.ends(theirs)
        return place == "word" and matched and not self._others.ends(others)


class _Globs:
    """Patterns, and where in them a name can be: a bit for each place, of all places in a row."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self.steps = dict.fromkeys(_LETTERS, 0)
        """By letter the places that it leads on from."""
        self._stars = self._ends = begin = 0
        place = 1
        for pattern in patterns:
            begin |= place
            for token in _TOKEN.findall(pattern):
                if token.startswith("*"):
                    self._stars |= place
                else:
                    for letter in _matching(token):
                        self.steps[letter] |= place
                place <<= 1
            self._ends |= place
            place <<= 1
        last_stars = self._stars & self._ends >> 1
        self._all = last_stars | last_stars << 1
        self.begin = self._past_stars(begin)

    def step(self, places: int, letter: str) -> int:
        """Where a name can be after this letter, which stars stay behind for."""
        return self._past_stars((places & self.steps[letter]) << 1 | places & self._stars)

    def ends(self, places: int) -> bool:
        """Whether a pattern matches what ends here."""
        return bool(places & self._ends)

    def matches_all(self, places: int) -> bool:
        """Whether a pattern matches, however it goes on."""
        return bool(places & self._all & self._stars)

    def _past_stars(self, places: int) -> int:
        """With where it is if a star stands for nothing; where all is matched is one place."""
        places |= (places & self._stars) << 1
        return self._all if self.matches_all(places) else places


_globs = lru_cache(1000)(_Globs)  # many namespaces are looked at for the same readers


@lru_cache(1000)
def _matching(token: str) -> tuple[str, ...]:
    return tuple(letter for letter in _LETTERS if fnmatchcase(letter, token))


def _told_apart(*globs: _Globs) -> list[str]:
    """One letter of each kind that makes a difference."""
    kinds: dict[tuple[object, ...], str] = {}
    for letter, kind in _LETTERS.items():
        kinds.setdefault((kind, *[each.steps[letter] for each in globs]), letter)
    return list(kinds.values())
