"""The one door."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from threading import get_ident

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.access.control import (
    PASSWORD_SECONDS,
    ControlledAccess,
    parse_basic,
    to_basic,
)
from cacheproxy.access.htpasswd import Passwords
from cacheproxy.access.identity import NOBODY, Identity
from cacheproxy.access.policy import Action, Policy
from cacheproxy.access.scope import CATALOG
from cacheproxy.errors import Denied, Unauthorized, Unavailable
from cacheproxy.oci.reference import Repository
from tests.access.doors import PASSWORD, USERS, Clock, basic, door, htpasswd, policy, tokens

_APP = Repository("ci/app")
_BASE = Repository("base/busybox")


@dataclass
class Counting(Passwords):
    """Passwords that count how often they are looked at, and tell in which thread."""

    looks: Counter[str] = field(default_factory=Counter)
    thread: int = 0

    def __post_init__(self) -> None:
        found = Passwords.parse(htpasswd(*USERS))
        super().__init__(found._hashes)

    def fits(self, user: str, password: str) -> bool:
        self.looks[user] += 1
        self.thread = get_ident()
        return super().fits(user, password)


def _counted(clock: Clock) -> tuple[ControlledAccess, Counting]:
    passwords = Counting()
    return ControlledAccess(passwords, policy(), tokens(clock), clock), passwords


async def _wrong(access: ControlledAccess, credentials: str) -> Unauthorized:
    with pytest.raises(Unauthorized) as refused:
        await access.identify(credentials)
    return refused.value


async def test_who_sends_nothing_is_nobody() -> None:
    """And is asked for credentials by the version check, so that clients know to send some."""
    access = door()
    assert await access.identify(None) is NOBODY
    with pytest.raises(Unauthorized) as refused:
        access.authorize(NOBODY, Action.PULL, None)
    assert refused.value.problem == ""


async def test_a_password_is_looked_at_once_a_minute() -> None:
    """A build sends it with each of its requests."""
    clock = Clock()
    access, passwords = _counted(clock)
    for _ in range(3):
        assert await access.identify(basic("runner")) == Identity("runner")
    assert passwords.looks["runner"] == 1
    clock.now += PASSWORD_SECONDS
    await access.identify(basic("runner"))
    assert passwords.looks["runner"] == 2


async def test_a_password_is_looked_at_beside_the_event_loop() -> None:
    """It takes a tenth of a second, in which nobody else would be answered."""
    access, passwords = _counted(Clock())
    await access.identify(basic("runner"))
    assert passwords.thread not in (0, get_ident())


async def test_a_password_that_many_send_at_once_is_looked_at_once() -> None:
    """BuildKit opens many connections; a wrong one is refused to all of them."""
    access, passwords = _counted(Clock())
    found = await asyncio.gather(*[access.identify(basic("runner")) for _ in range(20)])
    assert set(found) == {Identity("runner")}
    wrong = [access.identify(basic("reader", "wrong")) for _ in range(20)]
    refused = await asyncio.gather(*wrong, return_exceptions=True)
    assert all(isinstance(each, Unauthorized) for each in refused)
    assert passwords.looks == {"runner": 1, "reader": 1}


async def test_a_wrong_password_is_not_remembered() -> None:
    """Or it would be refused when it has become right."""
    access, passwords = _counted(Clock())
    for _ in range(2):
        await _wrong(access, basic("runner", "wrong"))
    assert passwords.looks["runner"] == 2


async def test_who_is_unknown_is_looked_at_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long it takes does not tell which users there are, and neither do the words."""
    import bcrypt

    costs: list[bytes] = []
    look = bcrypt.checkpw

    def checkpw(password: bytes, stored: bytes) -> bool:
        costs.append(stored[:7])
        return look(password, stored)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    access = door()
    said = [str(await _wrong(access, basic(user, "wrong"))) for user in ("runner", "nobody")]

    assert costs == [b"$2b$04$"] * 2
    assert said[0] == said[1]


async def test_too_many_passwords_at_once_are_an_overload() -> None:
    """503, as the same may succeed later; nothing waits without end."""
    access = door()
    asked = [access.identify(basic("runner", str(number))) for number in range(400)]
    refused = await asyncio.gather(*asked, return_exceptions=True)
    kinds = Counter(type(each) for each in refused)
    assert kinds == {Unauthorized: 200, Unavailable: 200}


async def test_a_change_counts_at_once() -> None:
    """For who was known already, by password or by token."""
    access = door()
    token = access.token(await access.identify(basic("runner")), frozenset({("ci/app", "push")}))
    bearer = f"Bearer {token.text}"
    access.authorize(await access.identify(bearer), Action.PUSH, _APP)

    access.replace(Passwords.parse(htpasswd("runner")), Policy())
    for credentials in (basic("runner"), bearer):
        with pytest.raises(Denied):
            access.authorize(await access.identify(credentials), Action.PUSH, _APP)

    access.replace(Passwords.parse(htpasswd("reader")), policy())
    for credentials in (basic("runner"), bearer):
        await _wrong(access, credentials)


async def test_what_was_looked_at_before_a_change_is_not_remembered_after_it() -> None:
    """A password that is replaced while it is looked at is good for that request at most."""
    access, passwords = _counted(Clock())
    running = asyncio.create_task(access.identify(basic("runner")))
    await asyncio.sleep(0)
    access.replace(Passwords.parse(htpasswd("reader")), policy())
    await asyncio.gather(running, return_exceptions=True)
    assert passwords.looks["runner"] == 1
    await _wrong(access, basic("runner"))


async def test_a_token_ends_though_it_is_remembered() -> None:
    """At its own end."""
    clock = Clock()
    access = door(clock)
    token = access.token(await access.identify(basic("runner")), frozenset())
    clock.now += 200
    await access.identify(f"Bearer {token.text}")
    clock.now += 200
    assert (await _wrong(access, f"Bearer {token.text}")).problem == "invalid_token"


async def test_a_token_is_for_what_it_was_asked_for() -> None:
    """Though the user may do more; the client is told to ask for another."""
    access = door()
    token = access.token(await access.identify(basic("runner")), frozenset({("ci/app", "pull")}))
    known = await access.identify(f"bearer {token.text}")

    access.authorize(known, Action.PULL, _APP)
    access.authorize(known, Action.PULL, None)
    for action, name in ((Action.PUSH, _APP), (Action.PULL, _BASE)):
        with pytest.raises(Unauthorized) as refused:
            access.authorize(known, action, name)
        assert refused.value.problem == "insufficient_scope"
    with pytest.raises(Denied):
        access.authorize(known, Action.DELETE, _APP)
    assert (access.visible(known, _APP), access.visible(known, _BASE)) == (True, False)


async def test_a_token_grants_only_what_is_allowed() -> None:
    """Nothing is refused by the endpoint of tokens; the token just grants less."""
    access = door()
    wanted = frozenset(
        {("ci/app", "pull"), ("ci/app", "delete"), ("base/x", "pull"), ("other", "pull"), CATALOG}
    )
    for credentials, granted in (
        (basic("runner"), {("ci/app", "pull"), ("base/x", "pull"), CATALOG}),
        (basic("stranger"), {("base/x", "pull"), CATALOG}),
        (None, {("base/x", "pull"), CATALOG}),
    ):
        token = access.token(await access.identify(credentials), wanted)
        assert (await access.identify(f"Bearer {token.text}")).grants == frozenset(granted)


async def test_a_token_buys_no_token() -> None:
    """Or a narrow one would be as good as a wide one, for ever."""
    access = door()
    token = access.token(await access.identify(basic("runner")), frozenset())
    known = await access.identify(f"Bearer {token.text}")
    with pytest.raises(Unauthorized):
        access.token(known, frozenset({("ci/app", "push")}))


async def test_a_token_shows_no_metrics() -> None:
    """It is for repositories; the password of the same user shows them."""
    access = door()
    known = await access.identify(basic("scraper"))
    access.authorize(known, Action.METRICS, None)
    token = access.token(known, frozenset())
    with pytest.raises(Unauthorized):
        access.authorize(await access.identify(f"Bearer {token.text}"), Action.METRICS, None)


@pytest.mark.parametrize(
    "credentials",
    [
        "",
        "Basic",
        "Basic ",
        "Basic !",
        "Basic Og==",
        "Basic eDo=",
        "Basic eA==",
        "Basic /w==",
        "Digest x",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer a.b.c",
        "\udcff",
        basic("runner")[6:],
    ],
)
async def test_what_are_no_credentials_is_refused(credentials: str) -> None:
    """Never taken for nobody's, whom some things are open to."""
    await _wrong(door(), credentials)


async def test_no_refusal_tells_what_was_sent() -> None:
    """Its words go to the log."""
    access = door()
    for credentials in (basic("secret", "secret"), "Bearer secret", "Basic secret", "secret"):
        assert "secret" not in str(await _wrong(access, credentials))


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(_TEXT.filter(lambda text: ":" not in text), _TEXT)
def test_credentials_come_back_from_a_header(user: str, password: str) -> None:
    """RFC 7617: in UTF-8, and a password may have colons."""
    assert parse_basic(to_basic(user, password).removeprefix("Basic ")) == (user, password)


async def test_what_is_remembered_is_no_credentials() -> None:
    """A copy of the process's memory shows HMACs."""
    access = door()
    await access.identify(basic("runner"))
    [key] = access._remembered
    assert len(key) == 32
    assert PASSWORD.encode() not in key


def test_who_has_pushed_may_still_as_long_as_users_and_rules_say_so() -> None:
    """Caches are made of what was pushed by who may."""
    access = door()
    user = next(user for user in USERS if access.may_push(user, _APP))
    assert not access.may_push("stranger", _APP)

    access.replace(Passwords({}), policy())
    assert not access.may_push(user, _APP)
    access.replace(Passwords.parse(htpasswd(*USERS)), Policy())
    assert not access.may_push(user, _APP)
