/** Every colour of the page. The text colours have a contrast of 4.5 or more on both backgrounds (WCAG 2.2, 1.4.3). */
export const COLORS = {
  light: { background: '#ffffff', soft: '#f2f4f7', line: '#c3c9d4', text: '#1b2230', muted: '#4b5568', link: '#1d4ed8' },
  dark: { background: '#14181f', soft: '#1f2530', line: '#465063', text: '#e6e9ef', muted: '#aeb7c6', link: '#9dc1ff' },
} as const;

const variables = (colors: Readonly<Record<string, string>>) =>
  Object.entries(colors)
    .map(([name, value]) => `--${name}: ${value};`)
    .join(' ');

/**
 * The page's only style sheet. Long lines wrap, so that nothing scrolls sideways and no part needs keyboard scrolling. Every clickable part
 * is at least 24 pixels high (WCAG 2.2, 2.5.8).
 */
export const STYLE = `
:root { color-scheme: light dark; ${variables(COLORS.light)} }
@media (prefers-color-scheme: dark) { :root { ${variables(COLORS.dark)} } }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.6 system-ui, sans-serif; color: var(--text); background: var(--background); display: grid; grid-template-columns: 18rem minmax(0, 1fr); overflow-wrap: break-word; }
code, pre, h3 { overflow-wrap: anywhere; }
a { color: var(--link); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
[hidden] { display: none !important; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: 1rem; padding: .5rem; background: var(--background); }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1rem; border-right: 1px solid var(--line); font-size: 14px; }
nav ul { list-style: none; margin: 0 0 1rem; padding: 0; }
nav a { display: block; padding: 4px 0; text-decoration: none; }
nav a:hover, nav a:focus { text-decoration: underline; }
label { display: block; font-weight: 600; }
input { width: 100%; padding: .4rem; font: inherit; color: inherit; background: var(--background); border: 1px solid var(--muted); border-radius: .3rem; }
main { padding: 1rem 2rem 6rem; max-width: 70rem; }
h1 { margin-top: 0; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
h2, section { scroll-margin-top: 1rem; }
section { margin: 2.5rem 0; }
h3 { font: 600 15px/1.6 ui-monospace, monospace; margin: 0 0 .3rem; }
h4 { font-size: 14px; margin: .75rem 0 .25rem; }
h3 a { display: inline-block; min-height: 26px; color: inherit; text-decoration: none; }
h3 a:hover, h3 a:focus { text-decoration: underline; }
.verb { display: inline-block; min-width: 4.2rem; padding: 0 .5rem; margin-right: .5rem; border-radius: .3rem; background: var(--soft); text-align: center; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; font-size: 14px; }
td, th { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); }
td:first-child { min-width: 4rem; }
pre { background: var(--soft); padding: .75rem; border-radius: .4rem; font: 13px/26px ui-monospace, monospace; margin: .25rem 0; white-space: pre-wrap; }
code { font-family: ui-monospace, monospace; font-size: .92em; white-space: pre-wrap; line-height: 26px; }
code a, pre a { display: inline-block; min-width: 24px; line-height: 26px; }
summary { cursor: pointer; min-height: 26px; }
small { color: var(--muted); }
.example { position: relative; }
button { position: absolute; top: .4rem; right: .4rem; min-height: 28px; min-width: 4rem; font: inherit; font-size: 13px; color: var(--text); background: var(--background); border: 1px solid var(--muted); border-radius: .3rem; cursor: pointer; }
.copyable pre { padding-right: 5.5rem; }
@media (max-width: 50rem) { body { display: block; } nav { position: static; height: auto; border: 0; } main { padding: 1rem; } table, tbody, tr, td { display: block; } .copyable pre { padding: 2.75rem .75rem .75rem; } }
`;
