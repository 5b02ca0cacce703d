"""The look of report pages: quiet, readable on light and dark screens and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fafaf9; --panel: #ffffff; --ink: #26282b; --faint: #686c71; --line: #e2e2df; --accent: #3f6f8f;
  --good: #2f6b47; --good-back: #e3f1e8; --warn: #84560f; --warn-back: #f8ecd4;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #17191b; --panel: #1f2224; --ink: #e4e5e3; --faint: #9da1a5; --line: #34383b; --accent: #7fb0cf;
    --good: #a4d8b8; --good-back: #203a2b; --warn: #eccb8c; --warn-back: #40341c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 76rem; padding: 2.5rem 1.5rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
header { margin-bottom: 1.75rem; }
h1 { margin: 0; font-size: 1.75rem; font-weight: 600; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 0 0 .75rem; font-size: 1.05rem; font-weight: 600; }
h3 { margin: 1.25rem 0 .4rem; font-size: .875rem; font-weight: 600; color: var(--faint); }
p { margin: 0 0 .75rem; }
section > :last-child { margin-bottom: 0; }
section {
  margin: 0 0 1.25rem; padding: 1.25rem 1.5rem; background: var(--panel); border: 1px solid var(--line);
  border-radius: 8px;
}
.job { margin: 0; color: var(--faint); }
.uri, .note, figcaption { color: var(--faint); font-size: .875rem; overflow-wrap: anywhere; }
.uri { margin: .25rem 0 0; }
nav { margin-top: .9rem; font-size: .875rem; }
nav a { margin-right: 1.25rem; color: var(--accent); text-decoration: none; }
nav a:hover { text-decoration: underline; }
.status {
  display: inline-block; margin-left: .6rem; padding: .1rem .65rem; border-radius: 1rem; vertical-align: .3rem;
  font-size: .8rem; font-weight: 500; color: var(--warn); background: var(--warn-back);
}
.status.complete { color: var(--good); background: var(--good-back); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { font-weight: 400; text-align: left; }
.tiles { width: 100%; table-layout: fixed; }
.tiles th { padding: 0 .75rem 0 0; color: var(--faint); font-size: .875rem; }
.tiles td { padding: 0 .75rem 0 0; font-size: 1.4rem; font-weight: 600; line-height: 1.3; }
.bars, .pairs { width: 100%; table-layout: fixed; }
.bars th { width: 26%; padding: .15rem 1rem .15rem 0; overflow-wrap: anywhere; line-height: 1.3; }
.track { padding: 0; }
.bar { height: .8rem; min-width: 1px; border-radius: 2px; background: var(--accent); }
.value { width: 9rem; padding: .15rem 0 .15rem 1rem; text-align: right; white-space: nowrap; }
.pairs th { width: 12rem; padding: .2rem 1rem .2rem 0; color: var(--faint); vertical-align: top; }
.pairs td { padding: .2rem 0; overflow-wrap: anywhere; }
.stack { display: flex; gap: 2px; height: 1.4rem; margin-bottom: .75rem; overflow: hidden; border-radius: 4px; }
.part { flex: 0 0 0; min-width: 0; }
.legend th { padding: .1rem 0; }
.legend { margin-bottom: .75rem; }
.bars + .note { margin-top: .75rem; }
.dot { display: inline-block; width: .7rem; height: .7rem; margin-right: .6rem; border-radius: 2px; }
.c0 { background: #4e7d9e; } .c1 { background: #79a98a; } .c2 { background: #d0a45b; } .c3 { background: #b9706a; }
.c4 { background: #8a7aa8; } .c5 { background: #7f8b93; } .c6 { background: #5f9ea0; } .c7 { background: #a58a6f; }
pre {
  margin: 0 0 .75rem; padding: .7rem .9rem; border: 1px solid var(--line); border-radius: 6px;
  background: var(--page); white-space: pre-wrap; overflow-wrap: anywhere;
}
code { font: .86rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
ul { margin: 0 0 .75rem; padding-left: 1.2rem; }
li { overflow-wrap: anywhere; }
figure { margin: 0 0 1.5rem; }
img { display: block; max-width: 100%; height: auto; border: 1px solid var(--line); border-radius: 4px; }
figcaption { margin-top: .4rem; }
@media (max-width: 40rem) {
  body { padding: 1.25rem .75rem 2rem; }
  section { padding: 1rem; }
  .bars th { width: 35%; }
  .value { width: 7rem; }
  .tiles, .tiles tbody, .tiles thead { display: flex; }
  .tiles tr { display: flex; flex-direction: column; }
  .tiles th, .tiles td { height: 2rem; font-size: 1rem; line-height: 2rem; }
}
@media print {
  :root { --page: #ffffff; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  section { padding: 0; border: 0; }
  img { max-height: 24cm; }
  h2, .tiles, .stack, tr, figure { break-inside: avoid; }
  h2 { break-after: avoid; }
  .bar, .part, .dot, .status { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
