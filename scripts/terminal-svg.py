#!/usr/bin/env python3
"""usage: terminal-svg.py TITLE < CAPTURE > FILE.svg

Draws the output of `tmux capture-pane -p -e` as an SVG picture. Supports the colours and weights that svp and the shell
print (SGR 0-9, 30-37, 90-97, 38;5;N)."""
import html
import re
import sys

WIDTH, LINE, SIZE, PAD, BAR = 8.4, 19, 14, 18, 34
COLOURS = ["#484f58", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#c9d1d9"]
BRIGHT = ["#6e7681", "#ffa198", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#f0f6fc"]


def spans(line):
    """Yields the pieces of a line as (text, colour, bold, dim)."""
    colour, bold, dim = COLOURS[7], False, False
    for piece in re.split(r"(\x1b\[[0-9;]*m)", line):
        if not piece.startswith("\x1b["):
            if piece:
                yield piece, colour, bold, dim
            continue
        codes = [int(code or 0) for code in piece[2:-1].split(";")]
        while codes:
            code = codes.pop(0)
            if code == 0:
                colour, bold, dim = COLOURS[7], False, False
            elif code == 1:
                bold = True
            elif code == 2:
                dim = True
            elif code == 22:
                bold = dim = False
            elif code == 39:
                colour = COLOURS[7]
            elif 30 <= code <= 37:
                colour = COLOURS[code - 30]
            elif 90 <= code <= 97:
                colour = BRIGHT[code - 90]
            elif code in (38, 48) and codes[:1] == [5]:
                number = codes[1]
                del codes[:2]
                if code == 38 and number < 16:
                    colour = (COLOURS + BRIGHT)[number]


def main():
    lines = [line.rstrip() for line in sys.stdin.read().rstrip("\n").split("\n")]
    columns = max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in lines)
    width, height = round(columns * WIDTH + 2 * PAD), len(lines) * LINE + BAR + PAD
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>{html.escape(sys.argv[1])}</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
        '<g><circle cx="20" cy="17" r="6" fill="#ff5f57"/><circle cx="40" cy="17" r="6" fill="#febc2e"/>'
        '<circle cx="60" cy="17" r="6" fill="#28c840"/></g>',
        f'<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace" font-size="{SIZE}" xml:space="preserve">',
    ]
    for number, line in enumerate(lines):
        y, column, row = BAR + number * LINE + SIZE, 0, []
        for text, colour, bold, dim in spans(line):
            style = f' fill="{colour}"' + (' font-weight="bold"' if bold else "") + (' opacity=".6"' if dim else "")
            # Position each piece at its column, since fonts differ in width.
            x, length = PAD + column * WIDTH, len(text) * WIDTH
            row.append(f'<tspan x="{x:.1f}" textLength="{length:.1f}"{style}>{html.escape(text)}</tspan>')
            column += len(text)
        if row:
            out.append(f'<text y="{y}">{"".join(row)}</text>')
    out += ["</g>", "</svg>"]
    print("\n".join(out))


main()
