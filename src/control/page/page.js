// The status page. All that comes from the daemon is put into the page as text, never as markup.
'use strict';

const $ = id => document.getElementById(id);
const part = (box, name) => box.querySelector(`[data-of="${name}"]`);
// Characters that turn the direction of the text around them are left out.
const plain = text => String(text ?? '').replace(/[\u202a-\u202e\u2066-\u2069]/g, '');
const set = (node, text) => { text = plain(text); if (node.textContent !== text) node.textContent = text; };
const fill = (box, values) => { for (const [name, text] of Object.entries(values)) set(part(box, name), text); };
const grade = (node, kind) => { for (const k of ['good', 'flow', 'warn', 'bad']) node.classList.toggle(k, k === kind); };
const stamp = template => $(template).content.firstElementChild.cloneNode(true);
const pause = ms => new Promise(done => setTimeout(done, ms));

// Figures for people.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const number = n => whole.format(n);
const pace = n => (n > 0 && n < 100 ? tenth : whole).format(n);
const count = (n, one, many) => `${number(n)} ${n === 1 ? one : many ?? one + 's'}`;
function size(bytes) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let at = 0;
  while (bytes >= 1000 && at < units.length - 1) { bytes /= 1000; at += 1; }
  return `${at === 0 || bytes >= 100 ? whole.format(bytes) : tenth.format(bytes)} ${units[at]}`;
}
function span(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return minutes < 10 ? `${minutes} min${seconds % 60 ? ` ${seconds % 60} s` : ''}` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} days`;
}
function clock(ms) {
  const at = new Date(ms);
  const time = at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString([], { day: 'numeric', month: 'short' })}, ${time}`;
}
const left = seconds => seconds == null ? '–' : `~ ${span(seconds)}`;

// Talking to the daemon.

class Refused extends Error {}
let token = sessionStorage.getItem('looker-feed-token');
let entering = null;

async function ask(path, options = {}) {
  for (;;) {
    const headers = { ...options.headers }, used = token;
    if (token) headers.Authorization = `Bearer ${token}`;
    const answer = await fetch(path, { ...options, headers });
    if (answer.status === 401) {
      // Another call may have asked for it in the meantime.
      if (token === used) await enter(token ? 'That token was not accepted.' : '');
      continue;
    }
    if (!answer.ok) {
      const said = await answer.json().catch(() => ({}));
      throw new Refused(said.error ?? `The daemon answered with status ${answer.status}.`);
    }
    return answer;
  }
}
const read = async path => (await ask(path)).json();
async function change(path, body, method = 'POST') {
  const answer = await ask(path, {
    method,
    headers: { 'X-Looker-Feed': '1', 'Content-Type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body ?? {}),
  });
  return answer.json();
}

function enter(problem) {
  entering ??= new Promise(done => {
    const box = $('enter');
    set($('enter-problem'), problem);
    box.querySelector('form').onsubmit = event => {
      event.preventDefault();
      token = $('token').value.trim();
      $('token').value = '';
      // A header cannot hold other characters; the daemon has no such token either.
      if (!/^[\x21-\x7e]+$/.test(token)) { token = null; set($('enter-problem'), 'A token has only letters, digits and signs.'); return; }
      sessionStorage.setItem('looker-feed-token', token);
      entering = null;
      box.close();
      done();
    };
    box.oncancel = event => event.preventDefault();
    box.showModal();
  });
  return entering;
}

let silence;
function say(text) {
  const said = $('said');
  set(said, text);
  said.hidden = false;
  clearTimeout(silence);
  silence = setTimeout(() => { said.hidden = true; }, 7000);
}

function confirmed(text, verb) {
  const box = $('ask');
  set($('ask-text'), text);
  set(box.querySelector('[data-answer=yes]'), verb);
  return new Promise(done => {
    box.onclick = event => { const answer = event.target.dataset.answer; if (answer) box.close(answer); };
    box.onclose = () => done(box.returnValue === 'yes');
    box.returnValue = '';
    box.showModal();
  });
}

// A button cannot be pressed again before its call is answered; what goes wrong is said. It is not
// `disabled`, which would take the focus away.
async function during(button, work) {
  if (button.getAttribute('aria-disabled') === 'true') return;
  button.setAttribute('aria-disabled', 'true');
  try {
    const done = await work();
    if (done?.message) say(done.message);
  } catch (error) {
    say(error instanceof Refused ? error.message : 'The daemon did not answer.');
  } finally {
    button.removeAttribute('aria-disabled');
  }
}

async function download(path, name) {
  const url = URL.createObjectURL(await (await ask(path)).blob());
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

// Lists whose entries keep their place in the document, and so the focus, while they change.

function keyed(box, items, template, key, show) {
  const old = new Map([...box.children].map(node => [node.dataset.key, node]));
  let place = box.firstElementChild;
  for (const item of items) {
    let node = old.get(key(item));
    if (!node) { node = stamp(template); node.dataset.key = key(item); }
    old.delete(key(item));
    if (node === place) place = place.nextElementSibling;
    else box.insertBefore(node, place);
    node.item = item;
    show(node, item);
  }
  for (const node of old.values()) node.remove();
}

// What each part shows.

const STATES = { idle: ['Idle', 'good'], flowing: ['Flowing', 'flow'], waiting: ['Waiting', 'warn'], down: ['Down', 'bad'], paused: ['Paused', 'bad'], sending: ['Sending', 'flow'], done: ['Done', 'good'], cancelled: ['Cancelled', 'warn'] };
function badge(node, state, mild) {
  const [name, kind] = STATES[state] ?? [state, ''];
  set(node, name);
  grade(node, mild && kind === 'warn' ? '' : kind);
}

function glance(now) {
  const sum = (list, of) => list.reduce((all, one) => all + of(one), 0);
  const all = now.destinations;
  const batches = sum(all, d => d.batches), rate = sum(all, d => d.accepted_rate), limit = sum(all, d => d.limit);
  const { dead_letters: dead, rejected_rows: rejected, cancelled_rows: cancelled } = now.outbox;
  const oldest = all.map(d => d.oldest).filter(Boolean);
  fill(document, {
    receiving: now.receiving.length ? number(sum(now.receiving, r => r.rows)) : 'Nothing',
    'receiving-unit': now.receiving.length ? 'rows' : '',
    'receiving-more': now.receiving.length ? now.receiving.map(r => `${r.title || 'Untitled'} · ${size(r.bytes)} · for ${span((now.now - r.since) / 1000)}`).join('; ') : `${count(now.totals.rows_in, 'row')} in ${count(now.totals.deliveries_accepted, 'delivery', 'deliveries')} since the start`,
    waiting: batches ? number(batches) : 'Nothing',
    'waiting-unit': batches ? (batches === 1 ? 'batch' : 'batches') : '',
    'waiting-more': batches ? `${count(sum(all, d => d.rows), 'row')}, the oldest ${oldest.length ? `for ${span((now.now - Math.min(...oldest)) / 1000)}` : 'is new'}` : 'All that came in has been sent',
    sending: pace(rate),
    'sending-unit': 'batches/s',
    'sending-more': limit ? `accepted, of ${pace(limit)} a second allowed` : 'accepted by mParticle',
    care: dead ? number(dead) : 'Nothing',
    'care-unit': dead ? (dead === 1 ? 'dead letter' : 'dead letters') : '',
    'care-more': `${rejected ? count(rejected, 'rejected row') : 'No rejected rows'}${cancelled ? ` and ${count(cancelled, 'cancelled row')}` : ''} in the listed deliveries`,
  });
  grade($('care'), dead ? 'bad' : '');
  set($('clock'), `${size(now.outbox.bytes)} in the outbox · ${size(now.outbox.free_bytes)} free`);
  set($('version'), `looker-feed ${now.version}, up for ${span((now.now - now.started) / 1000)}`);
}

function notices(now, problem) {
  const list = [];
  if (!now.ready) list.push(['bad', `New deliveries are not taken. ${now.not_ready ?? ''}`]);
  if (now.outbox.refusing && now.outbox.refusing !== now.not_ready) list.push(['bad', `The outbox does not write. ${now.outbox.refusing}`]);
  for (const text of now.outbox.damage) list.push(['bad', text]);
  for (const d of now.destinations) {
    if (d.state === 'paused') list.push(['bad', `Nothing is sent to ${d.label}. ${d.why ?? ''}`]);
    if (d.state === 'down') list.push(['warn', `${d.label} does not answer; nothing is lost. ${d.why ?? ''}`]);
  }
  if (problem) list.push(['warn', `The deliveries cannot be shown. ${problem}`]);
  const box = $('notices');
  while (box.children.length > list.length) box.lastElementChild.remove();
  list.forEach(([kind, text], at) => {
    const node = box.children[at] ?? box.appendChild(document.createElement('p'));
    node.className = `notice ${kind}`;
    set(node, text);
  });
  const bad = list.filter(([kind]) => kind === 'bad').length;
  const working = now.receiving.length ? 'Receiving' : now.destinations.some(d => d.batches) ? 'Sending' : 'All is quiet';
  standing(bad ? 'bad' : list.length ? 'warn' : 'good', bad ? `${count(bad, 'thing needs', 'things need')} a person` : list.length ? 'Waiting for mParticle' : working);
}

function standing(kind, text) {
  grade($('state'), kind);
  set(part($('state'), 'sentence'), text);
}

function destination(node, d) {
  const now = latest.overview.now;
  badge(part(node, 'state'), d.state);
  const next = d.next_try && d.next_try > now ? ` Next try in ${span((d.next_try - now) / 1000)}.` : '';
  fill(node, {
    label: d.label,
    why: d.why ? d.why + next : '',
    pace: d.limit ? `Pace ${pace(d.rate)} of ${pace(d.limit)} batches a second` : `Pace ${d.rate ? pace(d.rate) + ' batches a second' : 'without a limit'}`,
    accepted: `${pace(d.accepted_rate)}/s`,
    batches: number(d.batches),
    rows: number(d.rows),
    bytes: size(d.bytes),
    oldest: d.oldest ? span((now - d.oldest) / 1000) : '–',
    left: left(d.seconds_left),
    flying: number(d.in_flight),
    latency: d.latency_mean_ms ? `${number(d.latency_mean_ms)} ms` : '–',
    success: d.last_success ? clock(d.last_success) : 'not yet',
    replies: Object.values(d.replies).some(n => n) ? `Replies: ${Object.entries(d.replies).filter(([, n]) => n).map(([kind, n]) => `${kind.replaceAll('_', ' ')} ${number(n)}`).join(' · ')}` : '',
    error: d.last_error ?? '',
  });
  part(node, 'latency').title = `99 of 100 below ${number(d.latency_p99_ms)} ms`;
  const meter = node.querySelector('.meter');
  meter.hidden = !d.limit;
  meter.setAttribute('aria-valuemax', d.limit);
  meter.setAttribute('aria-valuenow', Math.min(d.rate, d.limit));
  meter.firstElementChild.style.width = `${d.limit ? Math.min(100, 100 * d.rate / d.limit) : 0}%`;
  const can = { pause: d.state !== 'paused', resume: d.state === 'paused', retry: d.state === 'waiting' || d.state === 'down' };
  const focused = node.contains(document.activeElement) && document.activeElement.dataset.do;
  for (const [name, shown] of Object.entries(can)) {
    const button = node.querySelector(`[data-do=${name}]`);
    button.hidden = !shown;
    button.setAttribute('aria-label', `${button.textContent}: ${d.label}`);
  }
  // A button that goes hands its focus to the one that comes.
  if (focused && can[focused] === false) node.querySelector(`[data-do=${can.resume ? 'resume' : 'pause'}]`).focus();
}

// A link only when it is one: it comes from outside.
function web(text) {
  try {
    const url = new URL(text);
    return url.protocol === 'https:' || url.protocol === 'http:' ? url.href : null;
  } catch { return null; }
}

function delivery(node, d) {
  const title = part(node, 'title'), href = d.link ? web(d.link) : null, name = d.title || 'Untitled delivery';
  let link = title.querySelector('a');
  if (href && !link) {
    title.replaceChildren(link = document.createElement('a'));
    link.target = '_blank';
    link.rel = 'noopener noreferrer';
  }
  if (href) { if (link.href !== href) link.href = href; set(link, name); } else set(title, name);
  badge(part(node, 'state'), d.state, true);
  const rows = d.rows, open = rows.waiting + rows.in_flight;
  fill(node, {
    meta: `${d.destination_label} · received ${clock(d.received)}${d.finished ? ` · finished ${clock(d.finished)} after ${span((d.finished - d.received) / 1000)}` : ''}`,
    rows_in: number(d.rows_in), users: number(d.users),
    batches: d.batches_delivered === d.batches ? number(d.batches) : `${number(d.batches_delivered)} of ${number(d.batches)}`,
    delivered: number(rows.delivered), waiting: number(open),
    rejected: number(rows.rejected), dead: number(rows.dead), damaged: number(rows.damaged), cancelled: number(rows.cancelled), unchanged: number(rows.unchanged),
    left: open ? left(d.seconds_left) : '–',
  });
  part(node, 'damaged-box').hidden = !rows.damaged;
  part(node, 'cancelled-box').hidden = !rows.cancelled;
  part(node, 'unchanged-box').hidden = !rows.unchanged;
  grade(part(node, 'damaged'), 'bad');
  grade(part(node, 'rejected'), rows.rejected ? 'warn' : '');
  grade(part(node, 'dead'), rows.dead ? 'bad' : '');
  const share = n => d.rows_in ? 100 * n / d.rows_in : 0;
  const bar = node.querySelector('.stack'), settled = d.rows_in ? Math.floor(share(d.rows_in - open)) : 100;
  for (const [kind, n] of [['delivered', rows.delivered], ['flying', rows.in_flight], ['dead', rows.dead + rows.damaged], ['rejected', rows.rejected], ['cancelled', rows.cancelled]]) {
    bar.querySelector(`.${kind}`).style.width = `${share(n)}%`;
  }
  bar.setAttribute('aria-valuenow', settled);
  bar.setAttribute('aria-label', `Settled rows of ${name}`);
  const notes = part(node, 'notes');
  if (notes.children.length !== d.notes.length || d.notes.some((text, at) => notes.children[at].textContent !== plain(text))) {
    notes.replaceChildren(...d.notes.map(text => { const li = document.createElement('li'); li.textContent = plain(text); return li; }));
  }
  node.querySelector('[data-do=rejected]').hidden = !rows.rejected;
  node.querySelector('[data-do=dead-of]').hidden = !rows.dead;
  node.querySelector('[data-do=cancel]').hidden = !rows.waiting;
}

let latest = null;
function show(pulse) {
  latest = pulse;
  const now = pulse.overview;
  document.body.classList.remove('stale');
  glance(now);
  notices(now, pulse.problem);
  keyed($('destinations'), now.destinations, 't-destination', d => d.id, destination);
  keyed($('deliveries'), pulse.deliveries, 't-delivery', d => d.id, delivery);
  $('no-destinations').hidden = now.destinations.length > 0;
  $('no-deliveries').hidden = pulse.deliveries.length > 0;
  if (now.outbox.dead_letters !== dead.seen) { dead.seen = now.outbox.dead_letters; dead.load(); }
}

// Dead letters and rejected rows: lists in parts.

class Parts {
  constructor(box, more, template, key, show, path) {
    Object.assign(this, { box, more, template, key, show, path, items: [], next: null, turn: 0 });
  }
  async load(on) {
    const turn = ++this.turn;
    const wanted = Math.min(500, Math.max(25, on ? 25 : this.items.length));
    const after = on && this.next ? `&after=${encodeURIComponent(this.next)}` : '';
    try {
      const part = await read(`${this.path()}limit=${wanted}${after}`);
      if (turn !== this.turn) return;
      this.items = on ? this.items.concat(part.items) : part.items;
      this.next = part.next;
      keyed(this.box, this.items, this.template, this.key, this.show);
      this.more.hidden = this.next == null;
      this.after?.();
    } catch (error) { say(error instanceof Refused ? error.message : 'The daemon did not answer.'); }
  }
}

const dead = new Parts($('letters'), $('more-dead'), 't-letter', l => l.id, (node, l) => {
  fill(node, {
    title: l.title || 'Untitled delivery', id: l.id, reason: l.reason,
    meta: `${count(l.rows, 'row')}, ${size(l.bytes)} · sent ${l.attempts === 1 ? 'once' : `${number(l.attempts)} times`}, last ${clock(l.last_try)}`,
  });
}, () => `api/v1/dead-letters?${dead.of ? `delivery=${encodeURIComponent(dead.of.id)}&` : ''}`);
dead.of = null;
dead.seen = 0;
dead.after = () => {
  set($('h-dead'), dead.of ? `Dead letters of ${dead.of.title || 'this delivery'}` : 'Dead letters');
  $('all-dead').hidden = !dead.of;
  $('dead-buttons').hidden = dead.items.length === 0;
  $('no-dead').hidden = dead.items.length > 0;
  if (dead.of && !dead.items.length) { dead.of = null; dead.load(); }
};

const rows = new Parts($('rows-list'), $('more-rows'), 't-row', r => `${r.row}`, (node, r) => {
  fill(node, { row: `Row ${number(r.row)}`, reason: r.reason, text: r.text });
}, () => `api/v1/deliveries/${encodeURIComponent(rows.of.id)}/rejected?`);

// JSON text with breaks and indents and nothing else changed: numbers keep their digits.
function pretty(text) {
  let out = '', depth = 0;
  const line = () => '\n' + '  '.repeat(depth);
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g)) {
    if (token === '{' || token === '[') { depth += 1; out += token + line(); }
    else if (token === '}' || token === ']') { depth -= 1; out = /[{[]\s*$/.test(out.slice(-200)) ? out.trimEnd() + token : out + line() + token; }
    else if (token === ',') out += token + line();
    else out += token === ':' ? ': ' : token;
  }
  return out;
}

async function batch(id) {
  const text = await (await ask(`api/v1/dead-letters/${encodeURIComponent(id)}`)).text();
  // `batch` is the last key, and no string can hold an unescaped quote.
  const at = text.indexOf(',"batch":');
  if (at < 0) throw new Refused('The batch is not there any more.');
  return pretty(text.slice(at + 9, -1));
}

async function unfold(button, node, id) {
  const pre = node.querySelector('pre');
  if (pre.hidden && !pre.textContent) pre.textContent = await batch(id);
  pre.hidden = !pre.hidden;
  button.setAttribute('aria-expanded', String(!pre.hidden));
  set(button, pre.hidden ? 'Show the batch' : 'Hide the batch');
}

// The text goes to the daemon as it was written, so that numbers keep their digits.
async function edit(item) {
  const box = $('edit'), form = box.querySelector('form'), before = await batch(item.id);
  $('edit-text').value = before;
  $('edit-chance').hidden = !item.may_have_arrived;
  $('edit-double').checked = false;
  set($('edit-problem'), '');
  form.onsubmit = event => {
    event.preventDefault();
    const button = event.submitter, text = $('edit-text').value;
    during(button, async () => {
      set($('edit-problem'), '');
      try {
        JSON.parse(text);
        let done = await change(`api/v1/dead-letters/${encodeURIComponent(item.id)}`, `{"batch":${text},"may_double":${$('edit-double').checked}}`, 'PUT');
        box.close();
        if (done.changed && button.value === 'replay') done = await change('api/v1/dead-letters/replay', { ids: [done.id] });
        await dead.load();
        return done;
      } catch (error) {
        if (!(error instanceof Refused || error instanceof SyntaxError)) throw error;
        set($('edit-problem'), error instanceof Refused ? error.message : `This is not JSON: ${error.message}`);
      }
    });
  };
  // Nothing that was written goes with one key.
  box.oncancel = event => { if ($('edit-text').value !== before) event.preventDefault(); };
  box.showModal();
}

// What buttons do. `item` is the entry that the button stands in.

const choice = () => dead.of ? { delivery: dead.of.id } : { all: true };
const letters = async (verb, which) => {
  const done = await change(`api/v1/dead-letters/${verb}`, which);
  await dead.load();
  return done;
};
const actions = {
  pause: item => change(`api/v1/destinations/${encodeURIComponent(item.id)}/pause`),
  resume: item => change(`api/v1/destinations/${encodeURIComponent(item.id)}/resume`),
  retry: item => change(`api/v1/destinations/${encodeURIComponent(item.id)}/retry`),
  replay: item => letters('replay', { ids: [item.id] }),
  'replay-all': () => letters('replay', choice()),
  async discard(item) {
    if (await confirmed(`Discard this batch? ${count(item.rows, 'row')} of “${item.title || 'Untitled delivery'}” will never reach mParticle.`, 'Discard')) return letters('discard', { ids: [item.id] });
  },
  async 'discard-all'() {
    const what = dead.of ? `the dead letters of “${dead.of.title || 'this delivery'}”` : 'all dead letters';
    if (await confirmed(`Discard ${what}? Their rows will never reach mParticle. Download them first if in doubt.`, 'Discard all')) return letters('discard', choice());
  },
  async cancel(item) {
    if (await confirmed(`Cancel the rest of “${item.title || 'Untitled delivery'}”? ${count(item.rows.waiting, 'row')} that wait will never reach mParticle. What was sent stays sent.`, 'Cancel the rest')) return change(`api/v1/deliveries/${encodeURIComponent(item.id)}/cancel`);
  },
  show: (item, button, node) => unfold(button, node, item.id),
  edit: item => edit(item),
  'close-edit': () => $('edit').close(),
  'more-dead': () => dead.load(true),
  'download-dead': () => download(`api/v1/dead-letters/export${dead.of ? `?delivery=${encodeURIComponent(dead.of.id)}` : ''}`, 'looker-feed-dead-letters.jsonl'),
  async 'all-dead'() { dead.of = null; await dead.load(); },
  async 'dead-of'(item) {
    dead.of = item;
    await dead.load();
    $('dead').scrollIntoView();
    (document.querySelector('#letters button') ?? $('more-dead')).focus({ preventScroll: true });
  },
  async rejected(item) {
    rows.of = item;
    rows.items = [];
    set($('rows-title'), `Rejected rows of ${item.title || 'this delivery'}`);
    await rows.load();
    $('rows').showModal();
  },
  'more-rows': () => rows.load(true),
  'download-rows': () => download(`api/v1/deliveries/${encodeURIComponent(rows.of.id)}/rejected/export`, 'looker-feed-rejected-rows.jsonl'),
  'close-rows': () => $('rows').close(),
};
document.addEventListener('click', event => {
  const button = event.target.closest('button[data-do]');
  if (!button) return;
  const node = button.closest('article');
  during(button, async () => actions[button.dataset.do](node?.item, button, node));
});

// Charts: one path each, over the samples that the daemon keeps.

const CHARTS = [
  { title: 'Throughput', of: s => s.accepted_rate, unit: v => `${pace(v)} batches/s` },
  { title: 'Backlog', of: s => s.backlog_batches, unit: v => count(v, 'batch', 'batches') },
  { title: 'Told to slow down (429)', of: s => s.throttled, unit: v => count(v, 'reply', 'replies'), merge: (a, b) => a + b, alarm: true },
  { title: 'Reply time', of: s => s.latency_mean_ms, second: s => s.latency_p99_ms, unit: v => `${number(v)} ms` },
];
const WIDTH = 600, HEIGHT = 110, POINTS = 240;
let samples = [];

function thin(list, of, merge) {
  const every = Math.ceil(list.length / POINTS);
  const out = [];
  for (let at = 0; at < list.length; at += every) {
    const group = list.slice(at, at + every);
    out.push({ at: group[group.length - 1].at, value: group.map(of).reduce(merge ?? Math.max) });
  }
  return out;
}

function svg(name, attributes) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function draw() {
  $('no-history').hidden = samples.length > 1;
  if (samples.length < 2) return;
  const from = samples[0].at, to = samples[samples.length - 1].at;
  const figures = CHARTS.map(chart => {
    const line = thin(samples, chart.of, chart.merge);
    const second = chart.second ? thin(samples, chart.second) : [];
    const top = Math.max(1, ...line.map(p => p.value), ...second.map(p => p.value));
    const x = p => (WIDTH * (p.at - from) / Math.max(1, to - from)).toFixed(1);
    const y = p => (HEIGHT - HEIGHT * p.value / top).toFixed(1);
    const path = points => points.map((p, at) => `${at ? 'L' : 'M'}${x(p)} ${y(p)}`).join('');
    const card = document.createElement('figure');
    card.className = `card chart${chart.alarm && line.some(p => p.value) ? ' alarm' : ''}`;
    card.style.margin = '0';
    const head = document.createElement('figcaption');
    head.className = 'bar';
    const title = document.createElement('h3'), value = document.createElement('span');
    title.textContent = chart.title;
    value.className = 'value';
    value.textContent = chart.unit(chart.of(samples[samples.length - 1]));
    head.append(title, value);
    const picture = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${chart.title}: now ${value.textContent}, at most ${chart.unit(top)} since ${clock(from)}` });
    picture.append(
      svg('path', { class: 'base', d: `M0 ${HEIGHT}H${WIDTH}` }),
      svg('path', { class: 'area', d: `${path(line)}L${x(line[line.length - 1])} ${HEIGHT}L${x(line[0])} ${HEIGHT}Z` }),
      svg('path', { class: 'line', d: path(line) }),
    );
    if (second.length) picture.append(svg('path', { class: 'line second', d: path(second) }));
    const axis = document.createElement('div');
    axis.className = 'axis';
    for (const text of [clock(from), `top ${chart.unit(top)}${chart.second ? ', dashed: 99 of 100' : ''}`, clock(to)]) {
      const label = document.createElement('span');
      label.textContent = text;
      axis.append(label);
    }
    card.append(head, picture, axis);
    return card;
  });
  $('charts').replaceChildren(...figures);
}

async function chart() {
  for (;;) {
    try {
      const since = samples.length ? samples[samples.length - 1].at : 0;
      const history = await read(`api/v1/history?since=${since}`);
      samples = samples.concat(history.samples).slice(-2160);
      draw();
    } catch { /* the live events say that the daemon is gone */ }
    await pause(10000);
  }
}

// Live events, read from the answer's body: an EventSource could not send the token.

async function live() {
  let wait = 1000;
  for (;;) {
    const quit = new AbortController();
    let watch;
    const alive = () => { clearTimeout(watch); watch = setTimeout(() => quit.abort(), 20000); };
    try {
      const answer = await ask('api/v1/events', { signal: quit.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let buffer = '';
      for (;;) {
        alive();
        const { value, done } = await reader.read();
        if (done) break;
        wait = 1000;
        const events = (buffer + value).split('\n\n');
        buffer = events.pop();
        for (const event of events) {
          const data = event.split('\n').find(line => line.startsWith('data: '));
          if (!data) continue;
          const pulse = JSON.parse(data.slice(6));
          // Without a version there is no overview: the daemon is stuck, and says why.
          if (pulse.overview.version) show(pulse);
          else { document.body.classList.add('stale'); standing('bad', pulse.problem ?? 'The daemon is stuck.'); }
        }
      }
      standing('bad', 'The daemon has closed the connection; trying again');
    } catch (error) {
      standing('bad', error instanceof Refused ? error.message : 'The daemon does not answer; trying again');
    }
    clearTimeout(watch);
    quit.abort();
    document.body.classList.add('stale');
    await pause(wait * (0.5 + Math.random()));
    wait = Math.min(15000, wait * 2);
  }
}

live();
chart();
dead.load();
