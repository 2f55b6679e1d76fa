"""What tokens are asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.access.scope import ACTIONS, CATALOG, from_claim, parse_scopes, scope_of, to_claim
from cacheproxy.errors import RequestInvalid

_GRANTS = st.frozensets(
    st.one_of(
        st.just(CATALOG),
        st.tuples(st.sampled_from(["a", "a/b", "registry", "c-d/e"]), st.sampled_from(ACTIONS)),
    )
)


@pytest.mark.parametrize(
    ("texts", "grants"),
    [
        ([], set()),
        ([""], set()),
        (["repository:a/b:pull"], {("a/b", "pull")}),
        (["repository:a/b:pull,push"], {("a/b", "pull"), ("a/b", "push")}),
        (["repository:a:pull repository:b:push"], {("a", "pull"), ("b", "push")}),
        (["repository:a:pull", "repository:b:push"], {("a", "pull"), ("b", "push")}),
        (["repository:a:*"], {("a", "pull"), ("a", "push"), ("a", "delete")}),
        (["registry:catalog:*"], {CATALOG}),
        (["repository(plugin):a:pull", "repository:A:pull", "x", ":", "::", "repository:a"], set()),
        (["repository:a:", "repository:a:metrics", "repository::pull", "registry:x:*"], set()),
    ],
)
def test_scopes_are_read(texts: list[str], grants: set[tuple[str, str]]) -> None:
    """Several of them in one text or in several; what is unknown is left out."""
    assert parse_scopes(texts) == grants


@given(_GRANTS)
def test_grants_come_back_from_a_token(grants: frozenset[tuple[str, str]]) -> None:
    """The `access` claim holds all of them and nothing else."""
    assert from_claim(to_claim(grants)) == grants


@given(st.sampled_from(ACTIONS), st.sampled_from(["a", "a/b"]))
def test_a_challenge_asks_for_what_is_lacking(action: str, name: str) -> None:
    """Whoever asks for the scope that a challenge names gets what it needs."""
    assert (name, action) in parse_scopes([scope_of(action, name)])


def test_there_is_an_end_to_scopes() -> None:
    """A token must fit into a header."""
    with pytest.raises(RequestInvalid):
        parse_scopes([f"repository:r{number}:*" for number in range(61)])


@given(st.lists(st.text()))
def test_any_text_is_read(texts: list[str]) -> None:
    """What is no scope grants nothing."""
    parse_scopes(texts)
