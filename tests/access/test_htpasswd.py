"""The file of passwords."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.access.htpasswd import AccessInvalid, Passwords
from tests.access.doors import PASSWORD, hashed, htpasswd


def test_the_password_of_a_user_fits_and_no_other() -> None:
    """Nor does anybody's who is not in the file, nor one that bcrypt would cut off."""
    found = Passwords.parse(f"# people\n\n{htpasswd('ann')}bob:{hashed('other')}\n")

    assert (len(found), "ann" in found, "eve" in found) == (2, True, False)
    assert found.fits("ann", PASSWORD)
    assert not found.fits("ann", "other")
    assert not found.fits("bob", PASSWORD)
    assert not found.fits("eve", PASSWORD)
    assert not found.fits("ann", "")
    assert not found.fits("ann", PASSWORD + "x" * 72)
    assert not Passwords.parse(f"ann:{hashed('x' * 72)}").fits("ann", "x" * 73)


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_every_name_of_bcrypt_is_taken(prefix: str) -> None:
    """`htpasswd -B` writes $2y$, others write $2b$."""
    stored = hashed(PASSWORD).replace("$2b$", prefix)
    assert Passwords.parse(f"ann:{stored}").fits("ann", PASSWORD)


@pytest.mark.parametrize(
    "line",
    [
        "ann",
        "ann:",
        ":" + hashed("x"),
        "ann:plain",
        "ann:$apr1$abc$def",
        "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        "ann:$2y$31$" + "a" * 53,
        "ann:$2y$05$" + "a" * 52,
        f"ann:{hashed('x')}:more",
        f"anonymous:{hashed('x')}",
    ],
    ids=range(10),  # salts differ in each process, names of tests may not
)
def test_what_is_not_bcrypt_is_refused(line: str) -> None:
    """With the number of the line, and without a word of it."""
    with pytest.raises(AccessInvalid, match="line 2") as refused:
        Passwords.parse(f"{htpasswd('bob')}{line}\n")
    assert line.partition(":")[2] not in str(refused.value) or line.endswith(":") or ":" not in line


def test_a_user_is_in_the_file_once() -> None:
    """Of two passwords one would be a surprise."""
    with pytest.raises(AccessInvalid, match="line 2"):
        Passwords.parse(htpasswd("ann", "ann"))


@given(st.text())
def test_any_text_is_a_file_or_is_refused(text: str) -> None:
    """Nothing else is raised."""
    try:
        Passwords.parse(text)
    except AccessInvalid:
        return


@given(st.text(), st.text())
def test_nobody_comes_in_where_nobody_is(user: str, password: str) -> None:
    """Whatever is sent."""
    assert not Passwords({"ann": b"$2b$04$" + b"a" * 53}).fits(user, password)
