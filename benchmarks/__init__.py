"""cacheproxy beside its peers, on one machine in one go: `python -m benchmarks`."""
