/**
 * The page's interactive parts: a search over operations and schemas, and a button that copies an example. The script creates both, so
 * that a browser without scripts shows no dead controls. It sends no requests and stores nothing.
 */
export const SCRIPT = `
'use strict';
const search = document.getElementById('wanted');
const found = document.getElementById('found');
search.closest('form').hidden = false;
search.closest('form').addEventListener('submit', (event) => event.preventDefault());

const entries = [...document.querySelectorAll('main section')].map((section) => ({
  section,
  link: document.querySelector('nav li a[href="#' + section.id + '"]'),
  text: section.dataset.search.toLowerCase(),
}));
const headings = [...document.querySelectorAll('main h2')].map((heading) => ({
  heading,
  link: document.querySelector('nav > a[href="#' + heading.id + '"]'),
  own: entries.filter(({ section }) => section.dataset.tag === heading.id),
}));

function show() {
  const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  for (const { section, link, text } of entries) {
    const matches = words.every((word) => text.includes(word));
    if (matches) count++;
    section.hidden = link.parentElement.hidden = !matches;
  }
  for (const { heading, link, own } of headings) heading.hidden = link.hidden = own.every(({ section }) => section.hidden);
  found.textContent = words.length === 0 ? '' : count === 1 ? '1 entry' : count + ' entries';
}
search.addEventListener('input', show);
document.addEventListener('keydown', (event) => {
  if (event.key === '/' && document.activeElement !== search && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
  } else if (event.key === 'Escape' && document.activeElement === search) {
    search.value = '';
    show();
  }
});

// A link to an operation that the search has hidden shows the operation again.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target === null || !target.hidden) return;
  search.value = '';
  show();
  target.scrollIntoView();
}
addEventListener('hashchange', reveal);

// Only pages served over https or from this machine may write to the clipboard.
if (navigator.clipboard !== undefined)
  for (const example of document.querySelectorAll('.example')) {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = 'Copy';
    button.setAttribute('aria-label', 'Copy: ' + example.dataset.name);
    button.addEventListener('click', async () => {
      let said = 'Copied';
      try {
        await navigator.clipboard.writeText(example.querySelector('pre').textContent);
      } catch {
        said = 'Refused';
      }
      button.textContent = said;
      setTimeout(() => (button.textContent = 'Copy'), 2000);
    });
    example.classList.add('copyable');
    example.append(button);
  }
`;
