"""Puts the latest result, `compare.md`, between its marks in the project's README.

usage: into_readme.py [TARGET_DIR]
"""

import sys
from pathlib import Path

BEGIN = "<!-- compare.md begins -->\n"
END = "<!-- compare.md ends -->\n"


def main() -> None:
    """Leaves the rest of the README as it is."""
    root = Path(__file__).parents[2]
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "target"
    readme = root / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    result = (target / "compare/compare.md").read_text()
    readme.write_text(f"{before}{BEGIN}\n{result}\n{END}{after}")


if __name__ == "__main__":
    main()
