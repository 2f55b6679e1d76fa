"""The registry that understands BuildKit caches."""

__version__ = "0.1.0"
