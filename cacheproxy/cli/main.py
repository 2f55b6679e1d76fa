"""The command line. Every mistake of a user ends here as one line and a non-zero exit."""

import click

from cacheproxy import __version__
from cacheproxy.cli.cache import cache
from cacheproxy.cli.config import config
from cacheproxy.cli.fsck import fsck
from cacheproxy.cli.gc import gc
from cacheproxy.cli.policy import policy
from cacheproxy.cli.serve import serve
from cacheproxy.cli.stats import stats
from cacheproxy.errors import RegistryError, StorageInvalid
from cacheproxy.listening import PortTaken
from cacheproxy.settings import ConfigError
from cacheproxy.storage.folder import FolderInUse


@click.group()
@click.version_option(__version__, prog_name="cacheproxy")
def cli() -> None:
    """The registry that understands BuildKit caches."""


for command in (serve, config, policy, cache, gc, fsck, stats):
    cli.add_command(command)


def run() -> int:
    """Run the command line; the exit status, which is what a command returns if it does."""
    try:
        status: int | None = cli(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.exceptions.Abort:
        return 130
    except (ConfigError, FolderInUse, PortTaken) as error:
        return _fail(str(error))
    except StorageInvalid as error:
        return _fail(f"storage.url: {error}")
    except RegistryError as error:
        cause = error.__cause__
        return _fail(f"storage.url: {error.detail}{f': {cause}' if cause else ''}")
    return status or 0


def _fail(problem: str, status: int = 1) -> int:
    click.echo(f"cacheproxy: {problem}", err=True)
    return status
