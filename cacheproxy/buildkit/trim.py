"""A cache without what is gone, so that what was lost is a miss and not a failed build."""

from collections.abc import Mapping

from cacheproxy.buildkit.cache import Cache
from cacheproxy.buildkit.keeping import LeftOut, keep
from cacheproxy.buildkit.union import living


def trim(cache: Cache, stored: Mapping[str, int]) -> tuple[Cache, LeftOut]:
    """Leave out what needs a layer that is not in `stored`, which has the sizes of those that are.

    Results go with any layer of their chain, records with the last result that they have or lead
    to. Nothing is added or reordered, so a cache in normal form stays in it.
    """
    descriptors = {
        digest: descriptor._replace(size=stored[digest])
        for digest, descriptor in cache.descriptors.items()
        if digest in stored
    }
    usable: list[bool] = []
    for layer in cache.config.layers:
        usable.append(layer.blob in descriptors and (layer.parent < 0 or usable[layer.parent]))
    records = cache.config.records
    results = [
        tuple([result for result in record.results if usable[result.layer]]) for record in records
    ]
    alive = living(records, [bool(each) for each in results])
    # keep() looks only at descriptors of layers that are usable, but counts all
    resized = Cache(cache.config, {**cache.descriptors, **descriptors}, cache.form)
    return keep(resized, alive, results)
