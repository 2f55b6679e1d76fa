"""`cacheproxy policy test`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.access.doors import BASE, NAMESPACES
from tests.cli.running import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Where a file of settings has the rules of the tests. No file of passwords is looked for."""
    settings = tmp_path / "settings.yaml"
    rules = "auth:" + BASE.replace("\n", "\n  ")
    settings.write_text(f"{rules}\nstorage: {{namespaces: {NAMESPACES}}}\n")
    return Site((f"--config={settings}",))


@pytest.mark.parametrize(
    ("question", "why"),
    [
        (("runner", "push", "ci/app"), "rule 2 allows it: user runner is in group ci"),
        (("reader", "pull", "ci/app"), "rule 3 allows it: it names user reader, 'ci/*' matches"),
        (("anonymous", "pull", "base/x"), "rule 1 allows it: it is for everybody"),
        (("scraper", "metrics"), "rule 6 allows it: it names user scraper"),
    ],
)
def test_what_is_allowed_is_explained(site: Site, question: tuple[str, ...], why: str) -> None:
    """By the first rule that does, with status 0."""
    said = site.told("policy", "test", *question)
    assert said.startswith("allowed\n")
    assert why in said


@pytest.mark.parametrize(
    ("question", "why"),
    [
        (("runner", "delete", "ci/app"), "rule 2 does not: it is about pull, push"),
        (("nobody", "pull", "ci/app"), "rule 3 does not: it is for others"),
        (("anonymous", "pull", "ci/app"), "rule 1 does not: it is about other repositories"),
        (("runner", "metrics"), "rule 6 does not: it is for others"),
    ],
)
def test_what_is_denied_is_explained(site: Site, question: tuple[str, ...], why: str) -> None:
    """By what every rule lacks, with status 1."""
    said = site.told("policy", "test", *question, status=1)
    assert said.startswith("denied\n  no rule allows it\n")
    assert why in said


def test_without_access_control_everything_is_allowed() -> None:
    """And it is said that there is none."""
    said = Site(()).told("policy", "test", "anonymous", "delete", "ci/app")
    assert said.startswith("allowed\n")
    assert "there is no access control" in said


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (("x", "pull"), "REPOSITORY"),
        (("x", "steal", "ci/app"), "'steal' is not one of"),
        (("x", "pull", "CI"), "'CI' is not a repository name"),
        (("x", "pull", "ci/app", "--auth-rules=[{}]"), "auth.rules"),
        (("x", "pull", "a", "--auth-rules=[{users: [x], actions: [pull]}]"), "has no repositories"),
    ],
)
def test_a_mistake_is_told(site: Site, question: tuple[str, ...], says: str) -> None:
    """In one line."""
    assert says in site.fails("policy", "test", *question)
