"""Writes THIRD-PARTY-LICENSES: the licences of all crates that the production binary is made of, with their texts.

With --check nothing is written, and a file that is not up to date is an error. The texts come from the crates' own
sources, which cargo has downloaded for a build.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "THIRD-PARTY-LICENSES"
# The binary differs between platforms in its crates, not in the licences that they may have.
PLATFORMS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "x86_64-apple-darwin", "aarch64-apple-darwin"]
NAMES = re.compile(r"(licen[cs]e|copying|notice|copyright)([-_. ].*)?", re.IGNORECASE)

HEAD = """\
pgsluice is under the MIT licence (LICENSE). Its binary contains the crates below, each under the licence that stands
beside it. Where a crate offers a choice that has MIT in it, MIT was chosen.
"""


def shipped_crates():
    """All crates that a normal dependency leads to from pgsluice, as the production image is built."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--no-default-features"]
    for platform in PLATFORMS:
        command += ["--filter-platform", platform]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    own = metadata["resolve"]["root"]
    found, waiting = set(), [own]
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            is_shipped = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if is_shipped and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    return sorted((packages[crate] for crate in found), key=lambda package: (package["name"], package["version"]))


def texts(package):
    """The licence texts of a crate: that of MIT where the choice has it, else all that there are."""
    directory = Path(package["manifest_path"]).parent
    files = sorted(path for path in directory.iterdir() if path.is_file() and NAMES.fullmatch(path.name))
    expression = package["license"].replace("/", " OR ")
    has_choice = "MIT" in expression and " OR " in expression and " AND " not in expression
    of_mit = [path for path in files if "mit" in path.name.lower()]
    chosen = of_mit if has_choice and of_mit else files
    return ["\n".join(line.rstrip() for line in path.read_text(errors="replace").strip().splitlines()) for path in chosen]


def render(packages):
    by_text, without = {}, []
    for package in packages:
        title = f"{package['name']} {package['version']} ({package['license']})"
        found = texts(package)
        for text in found:
            by_text.setdefault(text, []).append(title)
        if not found:
            authors = ", ".join(author.split(" <")[0] for author in package["authors"]) or "its authors"
            without.append(f"{title}, copyright {authors}, {package['repository']}")
    parts = [HEAD]
    for text, titles in sorted(by_text.items(), key=lambda item: item[1]):
        parts.append("=" * 100 + "\n" + "\n".join(titles) + "\n" + "-" * 100 + "\n" + text + "\n")
    if without:
        parts.append("=" * 100 + "\nThese ship no text of their licence:\n\n" + "\n".join(without) + "\n")
    return "\n".join(parts)


def main():
    rendered = render(shipped_crates())
    if sys.argv[1:] != ["--check"]:
        OUTPUT.write_text(rendered)
    elif not OUTPUT.exists() or OUTPUT.read_text() != rendered:
        sys.exit("THIRD-PARTY-LICENSES is not up to date; `make licenses` writes it")


if __name__ == "__main__":
    main()
