"""The page: one HTML file that needs nothing else, made to be printed.

Names, titles and paths are free text of somebody: every word passes `html.escape`, figures are embedded as PNG, and
the page forbids itself, by its content security policy, to load or run anything.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from html import escape

from livestem.runtime.map_colours import Colour
from livestem.runtime.report.tables import Cell, Table

GENERATOR = "livestem report"
_CSS = """
@page { size: A4; margin: 16mm 15mm; }
body { font: 10.5pt/1.42 "Source Serif 4", "Libertinus Serif", "Times New Roman", "Liberation Serif", serif;
  color: #111; background: #fff; max-width: 182mm; margin: 10mm auto; padding: 0 4mm; }
h1 { font-size: 19pt; line-height: 1.2; margin: 0 0 2mm; }
h2 { font-size: 14pt; margin: 11mm 0 2mm; border-bottom: 0.8pt solid #111; padding-bottom: 1mm; }
h3 { font-size: 11.5pt; margin: 5mm 0 1mm; }
h2, h3 { break-after: avoid; }
p { margin: 0 0 2.5mm; }
.lead { color: #444; }
figure { margin: 2mm 0 5mm; break-inside: avoid; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption, .note { font-size: 9pt; line-height: 1.35; color: #222; margin-top: 1.5mm; }
table { border-collapse: collapse;
  font: 8.4pt/1.35 "Source Sans 3", "Helvetica Neue", Arial, "Liberation Sans", sans-serif;
  font-variant-numeric: tabular-nums; margin: 1mm 0 1mm; break-inside: avoid; }
table.long { break-inside: auto; }
caption { caption-side: top; text-align: left; font-size: 9.5pt; font-weight: 600; padding-bottom: 1mm; }
th { text-align: left; font-weight: 600; border-top: 1pt solid #111; border-bottom: 0.6pt solid #111;
  vertical-align: bottom; }
th, td { padding: 0.7mm 3.2mm 0.7mm 0; vertical-align: top; }
.text { overflow-wrap: anywhere; min-width: 20mm; }
tbody tr:last-child td { border-bottom: 1pt solid #111; }
.facts th, .facts td { border: 0 !important; }
.facts td:first-child { font-weight: 600; white-space: nowrap; padding-right: 5mm; }
.number { text-align: right; }
td.number, .short { white-space: nowrap; }
.swatch { display: inline-block; width: 2.6mm; height: 2.6mm; border: 0.4pt solid #000; margin-right: 1.4mm;
  vertical-align: -0.2mm; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.warnings { border-left: 1.6mm solid #D55E00; padding: 1mm 0 1mm 3mm; margin: 3mm 0; font-size: 9.5pt;
  break-inside: avoid; }
.warnings ul { margin: 0; padding-left: 4mm; }
.scroll { overflow-x: auto; margin: 3mm 0 4mm; }
footer { margin-top: 10mm; border-top: 0.6pt solid #111; padding-top: 2mm; font-size: 8.5pt; color: #444; }
@media print { body { margin: 0; padding: 0; max-width: none; }
  h2 { break-before: page; } h2.first { break-before: auto; }
  .scroll { overflow: visible; } }
"""
_NUMBER = re.compile(r"([+−-]?\d[\d\u2009.e+-]*( ± [\d.]+)?|–.*)$")
_SHORT = 36  # characters of a cell that does not wrap
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Picture:
    """A figure of the page: its PNG, its width in print, what its caption says, the file beside the page."""

    name: str
    png: bytes
    width_mm: float
    caption: str


Block = Table | Picture | str
"""A part of the page: a table, a picture, or a heading of the third level."""


@dataclass(frozen=True)
class Section:
    """A part of the page, under a heading if it has one, with what a person should be warned of."""

    heading: str
    blocks: tuple[Block, ...]
    warnings: tuple[str, ...] = ()


def page(title: str, lead: str, sections: list[Section], footer: str) -> str:
    """Return the HTML of a report."""
    numbers = _Numbers()
    body = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(lead)}</p>']
    for i, section in enumerate(sections):
        if section.heading:
            body.append(f"<h2{' class=first' if not i else ''}>{escape(section.heading)}</h2>")
        body += [_warned(section.warnings)] if section.warnings else []
        body += [_block(block, numbers) for block in section.blocks]
    body.append(f"<footer>{escape(footer)}</footer>")
    return "\n".join(
        [
            "<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta name="generator" content="{GENERATOR}">', f"<title>{escape(title)}</title>",
            f"<style>{_CSS}</style>", "</head>", "<body>", *body, "</body>", "</html>", "",
        ]
    )  # fmt: skip


class _Numbers:
    """Counts figures and tables over the page."""

    def __init__(self) -> None:
        self.figures = self.tables = 0

    def figure(self) -> int:
        self.figures += 1
        return self.figures

    def table(self) -> int:
        self.tables += 1
        return self.tables


def _block(block: Block, numbers: _Numbers) -> str:
    if isinstance(block, str):
        return f"<h3>{escape(block)}</h3>"
    if isinstance(block, Table):
        return _table(block, numbers)
    data = base64.b64encode(block.png).decode()
    caption = f"<b>Figure {numbers.figure()}.</b> {escape(block.caption)}"
    alt = escape(block.caption.partition(".")[0], quote=True)
    image = f'<img alt="{alt}" style="width:{block.width_mm:.1f}mm" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _table(table: Table, numbers: _Numbers) -> str:
    kind = "facts" if not table.head else "long" if len(table.rows) > 16 else ""
    caption = f"<caption>Table {numbers.table()}. {escape(table.caption)}</caption>" if table.caption else ""
    numeric = [all(_is_number(row[k]) for row in table.rows) for k in range(len(table.head))]
    head = "".join(_cell(cell, "th", number=number) for cell, number in zip(table.head, numeric, strict=True))
    numeric = numeric or [False] * len(table.rows[0])
    rows = "".join(
        f"<tr>{''.join(_cell(c, 'td', number=n) for c, n in zip(row, numeric, strict=True))}</tr>\n"
        for row in table.rows
    )
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f'<div class="scroll"><table class="{kind}">{caption}{top}<tbody>{rows}</tbody></table>{note}</div>'


def _cell(cell: Cell | str, tag: str, *, number: bool) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    text = escape(cell.text)
    text = f"<b>{text}</b>" if cell.bold else text
    swatch = "" if cell.colour is None else f'<span class="swatch" style="background:{_hex(cell.colour)}"></span>'
    kind = "number" if number else "short" if len(cell.text) <= _SHORT else "text"
    return f'<{tag} class="{kind}">{swatch}{text}</{tag}>'


def _is_number(cell: Cell | str) -> bool:
    text = cell if isinstance(cell, str) else cell.text
    return _NUMBER.match(text) is not None


def _warned(warnings: tuple[str, ...]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f'<div class="warnings"><b>To be known</b><ul>{items}</ul></div>'


def _hex(colour: Colour) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)
