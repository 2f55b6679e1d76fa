"""`cacheproxy policy`."""

from typing import Any

import click

from cacheproxy.access.policy import Action
from cacheproxy.cli.options import loaded, with_settings
from cacheproxy.errors import NameInvalid
from cacheproxy.oci.reference import Repository


@click.group()
def policy() -> None:
    """Look at who may do what."""


@policy.command()
@click.argument("user")
@click.argument("action", type=click.Choice([action.value for action in Action]))
@click.argument("repository", required=False)
@with_settings("auth", "storage")
def test(user: str, action: str, repository: str | None, file: str | None, **flags: Any) -> int:
    """Explain whether USER may do ACTION in REPOSITORY, which metrics have none of.

    The USER `anonymous` is somebody without credentials. Passwords are not looked at. The exit
    status is 1 if it is denied.
    """
    from cacheproxy.rules import access_policy, namespaces

    config, asked = loaded(file, flags), Action(action)
    name = _repository(repository, asked)
    spaces = namespaces(config.storage)
    decision = access_policy(config.auth).explain(
        None if user == "anonymous" else user, asked, name
    )
    if not config.auth.on:
        click.echo(
            "allowed\n  there is no access control: auth.htpasswd_file and auth.rules are unset"
        )
        return 0
    lines = ["allowed" if decision.allowed else "denied", *decision.why]
    if name is not None and spaces.rules:
        lines.append(f"{name} is in namespace {spaces.of(name).name}")
    click.echo("\n  ".join(lines))
    return 0 if decision.allowed else 1


def _repository(text: str | None, action: Action) -> Repository | None:
    if action is Action.METRICS:
        return None
    if text is None:
        raise click.UsageError("Missing argument 'REPOSITORY'.")
    try:
        return Repository.parse(text)
    except NameInvalid as error:
        raise click.ClickException(error.detail) from None
