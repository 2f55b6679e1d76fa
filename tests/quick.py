"""`cacheproxy` that tries SeaweedFS out with one writer, not by a race of sixteen.

Those who race there for one key wait for each other in steps of a second. This is run as a script.
"""

from cacheproxy.__main__ import main
from cacheproxy.storage.s3 import probe

if __name__ == "__main__":
    probe._WRITERS = 1  # type: ignore[misc]
    main()
