"""The rooms, and the one direction of imports between them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_MODULES = sorted((_ROOT / "cacheproxy").rglob("*.py"))
_IMPORT_EACH_ALONE = """
import importlib, sys
for name in sys.argv[1:]:
    for known in [each for each in sys.modules if each.startswith("cacheproxy")]:
        del sys.modules[known]
    importlib.import_module(name)
"""


def test_a_room_imports_only_from_rooms_below_it() -> None:
    """The contracts in pyproject.toml hold."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    found = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)

    assert found.returncode == 0, found.stdout


def test_a_module_can_be_imported_alone() -> None:
    """No module needs another one to have been imported before it."""
    names = [
        ".".join(path.relative_to(_ROOT).with_suffix("").parts)
        for path in _MODULES
        if path.stem != "__init__"
    ]

    subprocess.run([sys.executable, "-c", _IMPORT_EACH_ALONE, *names], cwd=_ROOT, check=True)


def test_the_environment_is_read_in_one_place() -> None:
    """Only config.py names os.environ."""
    readers = [
        path.name
        for path in _MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    ]

    assert set(readers) == {"config.py"}
