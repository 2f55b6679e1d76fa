"""The rooms, and the one direction of imports between them."""

from __future__ import annotations

import ast
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_MODULES = sorted((_ROOT / "cacheproxy").rglob("*.py"))


def test_a_room_imports_only_from_rooms_below_it() -> None:
    """The contracts in pyproject.toml hold."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    found = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)

    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("room", sorted({path.parent.name for path in _MODULES}))
def test_a_module_can_be_imported_alone(room: str) -> None:
    """No module needs another one to have been imported before it."""
    names = [
        ".".join(path.relative_to(_ROOT).with_suffix("").parts)
        for path in _MODULES
        if path.parent.name == room and path.stem != "__init__"
    ]

    def import_alone(name: str) -> int:
        return subprocess.run([sys.executable, "-c", f"import {name}"], cwd=_ROOT).returncode

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(import_alone, names)) <= {0}


def test_the_environment_is_read_in_one_place() -> None:
    """Only config.py names os.environ."""
    readers = [
        path.name
        for path in _MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    ]

    assert set(readers) == {"config.py"}
