"""Tests with real clients and peers, and the handles on them that those tests share.

The handles take a registry host such as `127.0.0.1:5000` and call it over plain HTTP. Their calls
block, so a server under test must not live in the event loop that calls them.
"""
