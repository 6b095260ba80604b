"""The report's page around the scans: header, gallery, tables, and the one file that holds it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipeline.report_scan import Section

STYLE = Path(__file__).resolve().parent / "assets" / "report.css"


def page(title: str, parts: Sequence[str]) -> str:
    """A whole HTML document that needs nothing but itself."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE.read_text()}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def header(
    title: str, lead: str, totals: Mapping[str, str], details: Mapping[str, str], links: Mapping[str, str]
) -> str:
    """Title, one sentence, the big numbers, the small print, and links (anchor -> name) into the page."""
    tiles = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in totals.items()
    )
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in details.items()
    )
    anchors = "".join(f'<a href="#{escape(anchor)}">{escape(name)}</a>' for anchor, name in links.items())
    return (
        f"<header><h1>{escape(title)}</h1><p>{escape(lead)}</p>"
        f'<div class="tiles">{tiles}</div><dl>{rows}</dl><nav>{anchors}</nav></header>'
    )


def gallery(sections: Sequence[Section]) -> str:
    """One card per scan; a click leads to its section."""
    cards = "".join(
        f'<a href="#{escape(section.key)}"><img src="{section.thumbnail}" alt="{escape(section.key)}">'
        f'<span>{escape(section.key)} <i class="chip {escape(section.split)}">{escape(section.split)}</i>'
        "</span></a>"
        for section in sections
    )
    return f'<section id="scans"><h2>Scans shown in full</h2><div class="gallery">{cards}</div></section>'


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]], anchor: str) -> str:
    """A section with one table, numbers right-aligned; "" without rows."""
    if not rows:
        return ""
    return f'<section id="{escape(anchor)}"><h2>{escape(title)}</h2>{bare_table(head, rows)}</section>'


def bare_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """One table of at least one row, numbers right-aligned."""
    numeric = [isinstance(value, int | float) for value in rows[0]]
    heads = "".join(
        f"<th{' class=number' if right else ''}>{escape(name)}</th>"
        for name, right in zip(head, numeric, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>{body}</table></div>'


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:,.2f}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{escape(str(value))}</td>"


def size_text(num_bytes: int) -> str:
    """Bytes in kB, MB or GB (powers of 1000)."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes} bytes"
