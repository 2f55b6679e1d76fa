"""BuildKit's cache format as values and pure functions: parse, merge, trim, compact.

What is called BuildKit's rule here is `Add` of its cache/remotecache/v1/chains.go (v0.32.2).
"""
