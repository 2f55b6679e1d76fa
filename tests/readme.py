"""What README.md says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

README: Final = (Path(__file__).parent.parent / "README.md").read_text()


def snippet(language: str) -> str:
    """The only block of code in this language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return str(found)
