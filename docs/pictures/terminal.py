"""Prints an SVG of a terminal: what it showed while a command ran, and below that what it showed at the end.

Arguments: the number of columns, and two files as `tmux capture-pane -e -p` writes them, whose first line is the same.
The picture has no font and nothing else of its own, and refers to nothing: each browser draws it in its own monospaced
font, at the width that is written down.
"""

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

THEME = TerminalTheme(
    (22, 27, 34),
    (222, 226, 230),
    [(72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34), (88, 166, 255), (188, 140, 255), (57, 197, 207), (222, 226, 230)],
)

# Curly braces are doubled, because rich fills in the others.
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="what">
<title id="what">A terminal: pgsluice run shows its progress, and at the end what became of the messages</title>
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }}
{styles}
</style>
<defs>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> None:
    columns, running, ended = int(sys.argv[1]), *(Path(name).read_text() for name in sys.argv[2:])
    command, _, summary = ended.partition("\n")
    assert running.startswith(command), "the two pictures are of two commands"
    console = Console(width=columns, record=True, force_terminal=True, color_system="truecolor", file=io.StringIO())
    console.print(Text.from_ansi(running.rstrip()))
    console.print()
    console.rule("[dim]at its end, in the place of that line", style="dim", align="left")
    console.print()
    console.print(Text.from_ansi(summary.rstrip()))
    console.print()  # rich clips the last line
    svg = console.export_svg(title="", theme=THEME, code_format=SVG, unique_id="t")
    # Ends of lines are texts, too, to the right of the picture.
    sys.stdout.write(re.sub(r"<text [^>]*>\n</text>", "", svg))


main()
