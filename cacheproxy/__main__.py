"""`cacheproxy`, and `python -m cacheproxy`."""

import sys


def main() -> None:
    from cacheproxy.cli.main import run

    sys.exit(run())


if __name__ == "__main__":
    main()
