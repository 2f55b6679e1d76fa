"""Bytes by key: the Bucket protocol, its implementations, and the tree of keys."""
