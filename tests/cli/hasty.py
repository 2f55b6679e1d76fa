"""`cacheproxy` that quarantines without waiting for those who push. This is run as a script."""

from unittest.mock import patch

from cacheproxy.__main__ import main

if __name__ == "__main__":
    with patch("cacheproxy.collection.quarantine.WRITTEN_SECONDS", 0.0):
        main()
