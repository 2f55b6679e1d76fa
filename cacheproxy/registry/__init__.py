"""The rules of a registry, over a bucket."""
