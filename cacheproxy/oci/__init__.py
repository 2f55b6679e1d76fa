"""The distribution and image specs as values and pure functions."""
