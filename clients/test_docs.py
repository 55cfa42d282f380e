"""`docs/clients.md` says of every program what its test shows, and of none that has no test."""

import re
from pathlib import Path

from tools import TOOLS

HERE = Path(__file__).parent


def rows() -> list[list[str]]:
    text = (HERE.parent / "docs/clients.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_row_has_a_test_and_every_tool_a_row():
    written = "".join(path.read_text() for path in HERE.glob("test_run_*.py"))
    listed = set()
    for program, way, _, speaks, test in rows():
        test = test.strip("` |")
        if test == "test_run_tools":
            name = re.match("`(.+?)`", program)[1]
            assert name in TOOLS, f"{name} is not tested"
            assert way.split(",")[0] == TOOLS[name].way, name
            assert speaks == {"1.1": "HTTP/1.1", "2": "HTTP/2"}[TOOLS[name].version], name
            listed.add(name)
        else:
            assert f"def {test}(" in written, f"{program}: there is no {test}"
    assert listed == set(TOOLS)
