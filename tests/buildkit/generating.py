"""Caches such as BuildKit exports, from a random number generator.

They share a small world of steps and layers, so that different caches have records of one digest
with other inputs, the same records with other results, and the same chains of layers.
"""

from __future__ import annotations

import hashlib
from random import Random

from cacheproxy.buildkit.cache import (
    DIFF_ID,
    Alternative,
    Cache,
    Config,
    Form,
    Layer,
    LayerDescriptor,
    Record,
    Result,
)
from cacheproxy.buildkit.merge import Source

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
SECOND = 10**9
LATE = 10**6 * SECOND


def digest(*name: object) -> str:
    """A digest that stands for `name`."""
    return f"sha256:{hashlib.sha256(repr(name).encode()).hexdigest()}"


def descriptor(blob: str) -> LayerDescriptor:
    """The descriptor that every exporter gives the layer `blob`."""
    created = ("buildkit/createdat", "2026-01-01T00:00:00Z")
    return LayerDescriptor(GZIP, 1000, (created, (DIFF_ID, digest("tar of", blob))))


def cache_of(layers: list[Layer], records: list[Record], form: Form = "image") -> Cache:
    """A cache with these layers and records, and the descriptors that it needs."""
    blobs = {layer.blob: descriptor(layer.blob) for layer in layers}
    return Cache(Config(tuple(layers), tuple(records)), blobs, form)


def random_cache(random: Random, *, records: int = 12, mixed: bool = False) -> Cache:
    """A cache of up to `records` records of five different steps.

    A step has one to three inputs, always as many unless `mixed`, which BuildKit never is. An input
    has up to three alternatives.
    """
    layers: list[Layer] = []
    places: dict[Layer, int] = {}
    made = [Record(digest("root", number)) for number in range(random.randint(1, 3))]
    for _ in range(random.randint(1, records)):
        step = random.randrange(5)
        arity = random.randint(1, 3) if mixed else 1 + (step >= 3) + (step == 4)
        inputs = tuple(_alternatives(random, len(made)) for _ in range(arity))
        below = [result.layer for one in inputs[0] for result in made[one.record].results]
        layer = Layer(digest("layer", step, random.randrange(3)), below[0] if below else -1)
        results: tuple[Result, ...] = ()
        if random.random() < 0.6:
            if layer not in places:
                places[layer] = len(layers)
                layers.append(layer)
            results = (Result(places[layer], random.randrange(50) * SECOND),)
        made.append(Record(digest("step", step), inputs, results))
    return cache_of(layers, made, "index" if random.random() < 0.1 else "image")


def _alternatives(random: Random, count: int) -> tuple[Alternative, ...]:
    chosen = [
        # mostly the latest: builds are chains more than bushes
        Alternative(random.choice(("", "", "", "/a")), max(0, count - random.randint(1, 4)))
        for _ in range(random.choice((1, 1, 1, 2, 3)))
    ]
    return tuple(dict.fromkeys(chosen))


def random_sources(
    random: Random, *, most: int = 4, records: int = 12, mixed: bool = False
) -> list[Source]:
    """Two to `most` caches with times of receipt, some of which their results are newer than."""
    return [
        Source(
            random_cache(random, records=records, mixed=mixed),
            random.randint(20, 100) * SECOND,
            digest("source", at),
        )
        for at in range(random.randint(2, most))
    ]


def long_source(number: int, *, keys: bool) -> Source:
    """2,000 records as a monorepo has them: targets of 40 steps, each copying something in.

    Of each target the last 8 steps are the source's own. With `keys` what is copied in has two
    alternatives, of which one is different in each build, so that records of all sources are alike
    only after joining.
    """
    records, layers = [Record(digest("base"))], list[Layer]()
    below = 0
    while len(records) < 2000:
        target, step = divmod(len(layers), 40)
        own = number if step >= 32 else None
        contexts = [Alternative("/src", len(records))]
        records.append(Record(digest("context", target, step, own)))
        if keys:
            contexts.append(Alternative("", len(records)))
            records.append(Record(digest("key", target, step, number)))
        layers.append(Layer(digest("layer", target, step, own), len(layers) - 1 if step else -1))
        inputs = ((Alternative("", below if step else 0),), tuple(contexts))
        result = Result(len(layers) - 1, len(records) * SECOND)
        below = len(records)
        records.append(Record(digest("step", target, step), inputs, (result,)))
    return Source(cache_of(layers, records), LATE + number, digest(number))
