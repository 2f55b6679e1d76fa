"""Settings: what they may be, and what they are called.

A setting has one name, such as `server.listen`, that of its flag `--server-listen`, and that of its
environment variable `CACHEPROXY_SERVER__LISTEN`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_network
from typing import Annotated, Final, Literal, get_type_hints

import msgspec

PREFIX: Final = "CACHEPROXY_"

_TOLD_DEFAULTS: Final = {
    "storage.url": "$XDG_DATA_HOME/cacheproxy",
    "tier.folder": "$XDG_CACHE_HOME/cacheproxy",
}

_SIZE: Final = re.compile(r"(\d+)\s*(|B|KiB|MiB|GiB|TiB)")
_UNITS: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

Seconds = Annotated[float, msgspec.Meta(gt=0)]

SecondsOrNone = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
TokenSeconds = Annotated[int, msgspec.Meta(ge=60, le=86400)]
Sources = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class ConfigError(Exception):
    """A setting that cannot be used, in one sentence that says which."""


class Bytes(int):
    """A number of bytes, written as one or with a unit: `4MiB`."""

    @classmethod
    def parse(cls, text: str) -> "Bytes":
        match = _SIZE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"Expected a number of bytes such as 4MiB, got {text!r}")
        return cls(int(match[1]) * _UNITS[match[2]])


class Network(str):
    """A network as in `10.1.0.0/16`, or an address."""

    @classmethod
    def parse(cls, text: str) -> "Network":
        try:
            ip_network(text)
        except ValueError as error:
            raise ValueError(f"Expected a network, but {error}") from None
        return cls(text)


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:5000"
    """Address and port to listen on; port 0 takes a free one."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    """Processes that share the port and the data folder."""
    header_timeout: Seconds = 30.0
    """Seconds within which the head of a request must be complete."""
    body_idle_timeout: Seconds = 1800.0
    """Seconds without a byte after which a transfer is given up. BuildKit may pause for minutes."""
    keepalive_timeout: Seconds = 620.0
    """Seconds after which an idle connection is closed; more than BuildKit's 120."""
    drain_timeout: Seconds = 300.0
    """Seconds that running requests are given to end after SIGTERM."""
    public_url: str = ""
    """Where clients reach this registry, if not by what they call it: `https://cache.example`."""
    tls_cert_file: str = ""
    """Certificate and chain (PEM) to serve by TLS with; a new one is taken up within seconds."""
    tls_key_file: str = ""
    """The private key of the certificate, by default in the same file."""


class AccessRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is allowed, to whom, and where."""

    actions: tuple[Literal["pull", "push", "delete", "metrics"], ...]
    repositories: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    anonymous: bool = False


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    htpasswd_file: str = ""
    """Users and passwords, by `htpasswd -B`; with it, or with rules, the rest is denied."""
    rules: tuple[AccessRule, ...] = ()
    """Who may do what: `[{groups: [ci], actions: [pull, push], repositories: ["ci/*"]}]`."""
    groups: dict[str, tuple[str, ...]] = {}
    """The users in each group: `{ci: [runner1, runner2]}`."""
    signing_key_file: str = ""
    """The key of tokens (PEM; P-256 or Ed25519), by default one that ends with the process."""
    token_seconds: TokenSeconds = 300
    """How long a token is good for."""

    @property
    def on(self) -> bool:
        """Whether access is controlled at all."""
        return bool(self.htpasswd_file or self.rules)


class Clients(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    header: str = ""
    """The request header that names the client, where it is no user: `X-Runner`."""
    networks: dict[str, tuple[Network, ...]] = {}
    """The networks that clients are in: `{eu-runners: [10.1.0.0/16]}`; the smallest one counts."""
    trusted_proxies: tuple[Network, ...] = ()
    """The networks of proxies that are believed where requests come from (X-Forwarded-For)."""
    names: Count = 200
    """How many clients have a name in metrics; all that come later are `other`."""


class NamespaceRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Repositories that share their blobs with each other, and nothing with the others."""

    name: str
    repositories: tuple[str, ...]


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str = ""
    """Where the data is: file:///folder or s3://bucket/prefix."""
    namespaces: tuple[NamespaceRule, ...] = ()
    """Repositories that share no blobs with the rest: `[{name: a, repositories: ["a/*"]}]`."""


class S3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    endpoint_url: str = ""
    """Where S3 is, when it is not AWS."""
    region: str = ""
    """The region of the bucket; by default what the AWS chain says."""
    path_style: bool = False
    """Whether the bucket is named in the path, not in the host; many S3s other than AWS need it."""
    ca_file: str = ""
    """Certificates to trust instead of the system's."""
    sse: Literal["", "AES256", "aws:kms"] = ""
    """Encryption to ask for with each object."""
    sse_kms_key_id: str = ""
    """The key of `aws:kms`; by default the bucket's."""
    storage_class: str = ""
    """The class to ask for with each object."""
    checksums: Literal["auto", "required", "off"] = "auto"
    """Whether to send checksums: where they help, only where S3 demands them, or never."""
    part_bytes: Bytes = Bytes(16 << 20)
    """Blobs larger than this are sent in parts of this size."""
    copy_bytes: Bytes = Bytes(5 << 30)
    """The most that S3 copies in one request."""
    redirect_bytes: Bytes = Bytes(0)
    """Blobs of at least so many bytes are fetched from S3 by the clients themselves; 0: never."""
    public_endpoint_url: str = ""
    """Where clients that are redirected reach S3; by default the endpoint of the server."""


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    folder: str = ""
    """The folder on a local disk that holds what was lately pushed to S3 or read from it."""
    bytes: Bytes = Bytes(10 << 30)
    """How much of that disk to use, spools apart."""


class CacheRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What differs from the settings of `cache` where the name of a repository matches."""

    repositories: str
    sources: Sources | None = None
    window_seconds: Seconds | None = None


class Cache(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sources: Sources = 32
    """How many exports to one tag are served as one cache, the latest; 1: none are merged."""
    window_seconds: Seconds = 604800.0
    """How long ago such an export was last pushed or used."""
    rules: tuple[CacheRule, ...] = ()
    """Other values for repositories: `[{repositories: "ci/*", sources: 1}]`; the first counts."""
    verify_seconds: Seconds = 60.0
    """For how long the layers of a cache are taken to exist since they were last looked for."""
    config_bytes: Bytes = Bytes(1 << 20)
    """The largest config of a cache that is served: BuildKit ignores larger ones."""
    manifest_bytes: Bytes = Bytes(1 << 20)
    """The largest manifest of a cache that is served: BuildKit ignores larger ones."""


class RetentionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What differs from the settings of `retention` where the name of a repository matches."""

    repositories: str
    cache_unused_seconds: SecondsOrNone | None = None
    cache_bytes: Bytes | None = None
    image_tags: Count | None = None
    image_seconds: SecondsOrNone | None = None
    image_unpulled_seconds: SecondsOrNone | None = None
    untagged_seconds: Seconds | None = None


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cache_unused_seconds: SecondsOrNone = 2592000.0
    """How long a cache stays that nobody imports or exports; 0: for ever."""
    cache_bytes: Bytes = Bytes(0)
    """How many bytes of layers caches may have, those used last; 0: any number."""
    image_tags: Count = 0
    """How many tags of images a repository has, those pushed last; 0: any number."""
    image_seconds: SecondsOrNone = 0.0
    """How long the tag of an image stays since it was pushed; 0: for ever."""
    image_unpulled_seconds: SecondsOrNone = 0.0
    """How long the tag of an image stays since it was last pulled or pushed; 0: for ever."""
    untagged_seconds: Seconds = 86400.0
    """How long a manifest stays to which no tag leads, since it was pushed."""
    rules: tuple[RetentionRule, ...] = ()
    """Other values for repositories: `[{repositories: "pr/*", image_tags: 5}]`; first counts."""


class Collection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    interval_seconds: SecondsOrNone = 10800.0
    """How often what nobody needs is collected; 0: only by `cacheproxy gc`."""
    lease_seconds: Seconds = 86400.0
    """How long what a client was told to exist stays there, though nothing leads to it."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    manifest_bytes: Bytes = Bytes(8 << 20)
    """The largest manifest that is taken; every registry must take 4MiB."""
    blob_bytes: Bytes = Bytes(64 << 30)
    """The largest blob that is taken."""
    upload_seconds: Seconds = 86400.0
    """How long an upload session lives before its bytes are removed."""


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    listen: str = ""
    """Address and port of `/metrics` alone, open and without TLS; by default among the rest."""


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines to write; requests are info."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    server: Server = msgspec.field(default_factory=Server)
    auth: Auth = msgspec.field(default_factory=Auth)
    clients: Clients = msgspec.field(default_factory=Clients)
    storage: Storage = msgspec.field(default_factory=Storage)
    s3: S3 = msgspec.field(default_factory=S3)
    tier: Tier = msgspec.field(default_factory=Tier)
    cache: Cache = msgspec.field(default_factory=Cache)
    retention: Retention = msgspec.field(default_factory=Retention)
    collection: Collection = msgspec.field(default_factory=Collection)
    limits: Limits = msgspec.field(default_factory=Limits)
    metrics: Metrics = msgspec.field(default_factory=Metrics)
    log: Log = msgspec.field(default_factory=Log)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as users see it. `help` is the docstring below its field."""

    section: str
    name: str
    default: object
    help: str

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def told_default(self) -> str:
        """The default in words, where the value itself says nothing."""
        return _TOLD_DEFAULTS.get(self.key, str(self.default)) or "none"

    @property
    def variable(self) -> str:
        return f"{PREFIX}{self.section}__{self.name}".upper()

    @property
    def flag(self) -> str:
        return f"--{self.section}-{self.name}".replace("_", "-")


@cache  # reading what they are for takes milliseconds
def settings() -> tuple[Setting, ...]:
    """Every setting, in the order of this file."""
    return tuple(_settings())


def _settings() -> Iterator[Setting]:
    for section, kind in get_type_hints(Config).items():
        help_of = _field_docs(kind)
        for field in msgspec.structs.fields(kind):
            default = field.default
            if default is msgspec.NODEFAULT:
                default = field.default_factory()
            yield Setting(section, field.name, default, help_of[field.name])


def _field_docs(kind: type) -> dict[str, str]:
    """The strings below the fields of a struct, which Python itself throws away."""
    import ast
    import inspect

    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            docs[ast.unparse(field.target)] = ast.literal_eval(below.value)
    return docs
