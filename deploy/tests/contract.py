"""The tables of docs/deployment/contract.md."""

import re
from pathlib import Path

CONTRACT = Path(__file__).resolve().parent.parent.parent / "docs" / "deployment" / "contract.md"


def table(heading: str, first_column: str) -> list[list[str]]:
    """The rows of the table below a heading whose first column has this name."""
    text = CONTRACT.read_text()
    section = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert section, f"contract.md has no section {heading}"
    for block in re.findall(r"(?:^\|.*\n)+", section[1], re.M):
        lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
        if lines[0][0] == first_column:
            return lines[2:]
    raise AssertionError(f"contract.md has no table {first_column} below {heading}")


def codes(cell: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)
