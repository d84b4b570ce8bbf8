"""The look that reports share: pages that are one file and load nothing from elsewhere."""

from __future__ import annotations

# Light and dark as the reader's system asks; wide tables scroll in their own box on a phone.
STYLE = """
  :root {
    --ground: #ffffff; --card: #f5f6f8; --ink: #1b1f24; --faint: #5d6672; --line: #d5d9df;
    --right: #11743f; --wrong: #b3261e;
  }
  @media (prefers-color-scheme: dark) {
    :root {
      --ground: #14171b; --card: #1d2127; --ink: #e6e9ed; --faint: #9aa4b0; --line: #363c45;
      --right: #57c98a; --wrong: #ff8a80;
    }
  }
  * { box-sizing: border-box; }
  body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--ground);
    color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
  h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
  h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
  h3 { font-size: 1rem; margin: 1.75rem 0 .25rem; }
  p { margin: .25rem 0; max-width: 60rem; }
  .faint { color: var(--faint); }
  code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
  .wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
  table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
  th, td { padding: .45rem .7rem; text-align: right; white-space: nowrap; }
  td { border-top: 1px solid var(--line); }
  th { background: var(--card); font-weight: 600; vertical-align: bottom; }
  th small, td small { display: block; font-weight: 400; color: var(--faint); }
  .text { text-align: left; }
  dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1rem;
    margin: .25rem 0; }
  dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
  svg text { fill: var(--faint); font: 12px system-ui, sans-serif; }
  @media (max-width: 40rem) { body { padding: 1.25rem .9rem 3rem; } }"""
