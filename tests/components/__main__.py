"""Get the missing test components, or list them: `python -m tests.components [--list]`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from tests.components import COMPONENTS, Component


def main() -> int:
    """Return 0 when every component is (or, for `--list`, was) there, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.components", description=__doc__)
    parser.add_argument("--list", action="store_true", help="only show what is found, and where")
    arguments = parser.parse_args()
    step = _show if arguments.list else _ensure
    # All of them, because a missing component must not keep the others from their turn.
    outcomes = [step(component) for component in COMPONENTS]
    return 0 if all(outcomes) else 1


def _show(component: Component) -> bool:
    found = [component.find(binary) for binary in component.binaries]
    places = (str(path) if path else "missing" for path in found)
    pairs = (f"{binary} {place}" for binary, place in zip(component.binaries, places, strict=True))
    print(f"{component.name}: {', '.join(pairs)}")
    return all(found)


def _ensure(component: Component) -> bool:
    """Get `component` unless it is there, and say in one line what happened."""
    print(f"{component.name}: ", end="", flush=True)
    if _is_present(component):
        print("present")
        return True
    started = time.monotonic()
    try:
        component.install()
    except (OSError, subprocess.CalledProcessError) as error:
        print("FAILED")
        print(getattr(error, "stderr", None) or error, file=sys.stderr)
        return False
    if not _is_present(component):
        print("FAILED: installed, but its binaries are not found")
        return False
    print(f"installed in {time.monotonic() - started:.0f} s")
    return True


def _is_present(component: Component) -> bool:
    return all(component.find(binary) for binary in component.binaries)


if __name__ == "__main__":
    sys.exit(main())
