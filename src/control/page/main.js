// The pages: which one the address names, and when it is redrawn.

import { $, plain, root, settle, show } from './dom.js';
import { say, sentence } from './api.js';
import { size, span } from './format.js';
import { listen } from './live.js';
import { loading, problem } from './parts.js';
import overview from './overview.js';
import deliveries from './deliveries.js';
import delivery from './delivery.js';
import schedules from './schedules.js';
import destinations from './destinations.js';
import letters from './letters.js';
import rejected from './rejected.js';
import configuration from './configuration.js';
import audit from './audit.js';
import failed from './failed.js';
import people from './people.js';

// A page is made for an address and says what it looks like now:
//   title    the document's
//   draw     (pulse) => nodes
//   refresh  what it reads beside the live events, at most each `every` milliseconds
const PAGES = [
  [/^\/$/, overview],
  [/^\/deliveries$/, deliveries],
  [/^\/deliveries\/([^/]+)$/, delivery],
  [/^\/schedules$/, schedules],
  [/^\/destinations$/, destinations],
  [/^\/dead-letters$/, letters],
  [/^\/rejected-rows$/, rejected],
  [/^\/configuration$/, configuration],
  [/^\/audit$/, audit],
  [/^\/failed-deliveries$/, failed],
  [/^\/people$/, people],
];

const EVERY = 3000;
let pulse = null, page = null, turn = 0, read_at = 0, lost = null;

const path = () => '/' + location.pathname.slice(root.pathname.length).replace(/\/$/, '');

function open(focus) {
  const here = path();
  const [pattern, make] = PAGES.find(([one]) => one.test(here)) ?? PAGES[0];
  const args = here.match(pattern)?.slice(1).map(decodeURIComponent) ?? [];
  page = make({ args, params: new URLSearchParams(location.search), go, redraw: draw, refresh });
  turn += 1;
  read_at = 0;
  $('main').replaceChildren();
  const top = `/${here.split('/')[1]}`;
  for (const node of $('nav').querySelectorAll('a')) {
    if (node.dataset.page === top) node.setAttribute('aria-current', 'page');
    else node.removeAttribute('aria-current');
  }
  draw();
  refresh();
  if (focus) { scrollTo(0, 0); $('main').focus({ preventScroll: true }); }
}

// To another page, or the same one with other parameters.
export function go(to, replace) {
  const url = new URL(to.replace(/^\//, ''), root);
  if (url.href === location.href) return;
  const same = url.pathname === location.pathname;
  history[replace ? 'replaceState' : 'pushState'](null, '', url);
  if (same && page.moved) { page.moved(new URLSearchParams(url.search)); draw(); refresh(); } else open(true);
}

function draw() {
  document.title = `${page.title?.() ?? 'looker-feed'} · looker-feed`;
  if (!pulse && !page.alone) { show($('main'), lost ? problem(lost) : loading()); return; }
  show($('main'), page.problem ? problem(page.problem) : null, page.draw(pulse));
}

async function refresh() {
  if (!page.refresh) return;
  const mine = turn;
  read_at = Date.now();
  try {
    await page.refresh();
    page.problem = null;
  } catch (error) {
    page.problem = sentence(error);
  }
  if (mine === turn) draw();
}

function header() {
  const now = pulse.overview, { level, headline, issues } = now.health;
  $('state').className = level;
  const text = plain(headline);
  if ($('sentence').textContent !== text) $('sentence').textContent = text;
  $('clock').textContent = `${size(now.outbox.bytes)} in the outbox · ${size(now.outbox.free_bytes)} free`;
  $('version').textContent = `looker-feed ${now.version}, up for ${span((now.now - now.started) / 1000)}`;
  // A daemon that keeps failed deliveries has a page for them.
  $('failed').hidden = !now.failures?.on_record;
  $('dead-count').hidden = !now.outbox.dead_letters;
  $('dead-count').textContent = now.outbox.dead_letters;
  const needing = issues.filter(issue => issue.level === 'attention' || issue.level === 'failing').length;
  document.title = (needing ? `(${needing}) ` : '') + document.title.replace(/^\(\d+\) /, '');
}

document.addEventListener('click', event => {
  const node = event.target.closest('a[data-page]');
  if (!node || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(node.dataset.page);
});
addEventListener('popstate', () => open(true));
addEventListener('error', event => say(`The page has made a mistake: ${event.message}`));

settle();
open(false);
listen(
  heard => {
    pulse = heard;
    lost = null;
    document.body.classList.remove('stale');
    draw();
    header();
    if (pulse.problem) say(`The deliveries cannot be shown. ${pulse.problem}`);
    if (!document.hidden && page.refresh && Date.now() - read_at >= (page.every ?? EVERY)) refresh();
  },
  text => {
    lost = text;
    document.body.classList.add('stale');
    $('state').className = 'failing';
    $('sentence').textContent = plain(text);
    if (!pulse) draw();
  },
);

