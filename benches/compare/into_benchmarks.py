"""Puts the latest result, `compare.md`, between its marks in BENCHMARKS.md.

usage: into_benchmarks.py [TARGET_DIR]
"""

import sys
from pathlib import Path

BEGIN = "<!-- compare.md begins -->\n"
END = "<!-- compare.md ends -->\n"


def main() -> None:
    """Leaves the rest of the page as it is."""
    root = Path(__file__).parents[2]
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "target"
    page = root / "BENCHMARKS.md"
    before, begins, rest = page.read_text().partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not (begins and ends):
        sys.exit(f"{page} does not have both marks: {BEGIN.strip()} and {END.strip()}")
    result = (target / "compare/compare.md").read_text()
    page.write_text(f"{before}{BEGIN}\n{result}\n{END}{after}")


if __name__ == "__main__":
    main()
