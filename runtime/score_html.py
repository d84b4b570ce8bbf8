"""The parts that the page of a score is made of: its style, tables, lists and legends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from ..core.page import STYLE

# Classes of the marks are the states; on the map, whose ground is dark, they are brighter.
PAGE_STYLE = (
    STYLE
    + """
  :root { --track: #0b66c3; --degraded: #c4500b; --other: #a23b8f; --none: #e3e6ea; }
  @media (prefers-color-scheme: dark) {
    :root { --track: #6cb2ff; --degraded: #ff9a5c; --other: #e28fd2; --none: #2b3139; }
  }
  .figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr));
    gap: .6rem; margin: 1.25rem 0; }
  .figures div { padding: .6rem .8rem; background: var(--card); border-radius: 8px; }
  .figures b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
  .figures .bad b { color: var(--wrong); }
  .side { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
    gap: 0 2rem; align-items: start; }
  .side > * { min-width: 0; }
  svg { display: block; width: 100%; height: auto; }
  svg path { fill: none; }
  .grid { stroke: var(--line); } .event { stroke: var(--ink); stroke-dasharray: 3 3; }
  path.none { fill: var(--none); } .hazard { fill: var(--wrong); opacity: .13; }
  .line { stroke: var(--faint); stroke-width: 1.2; } .diagonal { stroke: var(--ink); }
  .r95 { stroke-dasharray: 4 2; } .limit { stroke: var(--wrong); stroke-dasharray: 7 4; }
  .dot { stroke: var(--other); stroke-linecap: round; }
  .dot.TRACK { stroke: var(--track); } .dot.DEGRADED { stroke: var(--degraded); }
  svg.map { border-radius: 8px; background: #46484b; }
  svg.map path { vector-effect: non-scaling-stroke; }
  .map .sheet { fill: #46484b; }
  .map .casing { stroke: #000; stroke-opacity: .55; stroke-width: 4; }
  .map .truth { stroke: #fff; stroke-width: 1.8; }
  .map .join { stroke: #ff3d6e; stroke-width: 1.6; }
  .map .r95 { stroke: #fff; stroke-width: 1; stroke-opacity: .75; stroke-dasharray: none; }
  .map .dot { stroke: #f3a6ff; } .map .rim { stroke: #000; } .map .missed { stroke: #9adcff; }
  .map .TRACK { stroke: #ffb000; } .map .DEGRADED { stroke: #ff6a3d; }
  .bar { height: .45rem; border: 2px solid var(--ink); border-top: 0; margin: .5rem 0 .1rem; }
  .legend { display: flex; flex-wrap: wrap; gap: .1rem 1.25rem; list-style: none; margin: .4rem 0;
    padding: 0; color: var(--faint); }
  .legend svg { display: inline-block; width: 1.6rem; height: .8rem; margin-right: .4rem;
    vertical-align: -.1rem; border-radius: 3px; }
  .note { padding: .5rem .8rem; background: var(--card); border-left: 3px solid var(--wrong); }
  svg.plot { max-width: 52rem; } .side svg.plot { max-width: 34rem; }
  .side th, .side td { padding: .4rem .5rem; }
  @media (max-width: 40rem) {
    .figures { grid-template-columns: 1fr 1fr; }
    svg.plot text { font-size: 19px; } .side svg.plot text { font-size: 15px; }
  }
"""
)


def definitions(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a list of names and texts."""
    yield "<dl>"
    for name, text in rows:
        yield f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"
    yield "</dl>"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table whose first column is text, in a box of its own that scrolls."""

    def row(cells: Sequence[str], tag: str) -> str:
        first, *others = map(escape, cells)
        rest = "".join(f"<{tag}>{cell}</{tag}>" for cell in others)
        return f'<tr><{tag} class="text">{first}</{tag}>{rest}</tr>'

    yield f'<div class="wide"><table><thead>{row(headings, "th")}</thead><tbody>'
    yield from (row(cells, "td") for cells in rows)
    yield "</tbody></table></div>"


def legend(*entries: tuple[str, str], kind: str = "") -> Iterator[str]:
    """Yield a legend of drawings and texts; `kind` is the class of what it belongs to."""
    yield '<ul class="legend">'
    for drawn, text in entries:
        yield (
            f'<li><svg class="{kind}" viewBox="0 0 32 10" aria-hidden="true">{drawn}</svg>'
            f"{escape(text)}</li>"
        )
    yield "</ul>"


def dot(kind: str) -> str:
    """Return the mark of a class for a legend."""
    return f'<path class="dot {kind}" stroke-width="7" d="M16 5h0"/>'
