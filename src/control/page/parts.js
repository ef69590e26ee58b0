// Parts that several pages show.

import { h, link } from './dom.js';
import { ago, count, exact, finish, number, span } from './format.js';
import { during } from './api.js';

const STANDINGS = {
  queued: ['Queued', ''], sending: ['Sending', 'flow'], blocked: ['Blocked', 'warn'], delivered: ['Delivered', 'good'],
  incomplete: ['Incomplete', 'warn'], held: ['Held', 'warn'], cancelled: ['Cancelled', ''], failed: ['Failed', 'bad'],
};
const STATES = { idle: ['Idle', ''], flowing: ['Flowing', 'flow'], waiting: ['Waiting', 'warn'], down: ['Down', 'bad'], paused: ['Paused', 'bad'] };

export const badge = (name, kind, why) => h('span', { class: `badge ${kind}`, 'data-of': 'state', title: why }, name);

export function standing(delivery) {
  const [name, kind] = STANDINGS[delivery.standing] ?? [delivery.standing, ''];
  return badge(name, kind === 'warn' && delivery.level === 'attention' ? 'bad' : kind, delivery.blocked);
}
export function stateOf(destination) {
  const [name, kind] = STATES[destination.state] ?? [destination.state, ''];
  return badge(name, kind);
}

// A relative time; the exact one on hover and for screen readers that ask.
export const when = (ms, now) => ms == null ? '–' : h('time', { datetime: new Date(ms).toISOString(), title: exact(ms) }, ago(ms, now));

export const isOpen = delivery => delivery.rows.waiting + delivery.rows.in_flight > 0;
export const isStuck = destination => destination.state === 'down' || destination.state === 'paused';
export const titled = delivery => delivery.title || 'Untitled delivery';

// What `took` means: from received to finished, or so far.
export const took = (delivery, now) => span(((delivery.finished ?? now) - delivery.received) / 1000);

// Rows a second that were delivered, from received to finished or so far; 0: none, or too short.
export function rowRate(delivery, now) {
  const seconds = ((delivery.finished ?? now) - delivery.received) / 1000;
  return seconds >= 1 ? delivery.rows.delivered / seconds : 0;
}

export function left(delivery, now) {
  if (!isOpen(delivery)) return '–';
  if (delivery.held) return 'When it is released';
  if (delivery.blocked) return delivery.blocked;
  return delivery.seconds_left == null ? 'Not known yet' : finish(delivery.seconds_left, now);
}

const KINDS = [['delivered', 'delivered'], ['unchanged', 'unchanged'], ['flying', 'in flight'], ['waiting', 'waiting'], ['dead', 'dead'], ['rejected', 'rejected'], ['cancelled', 'cancelled'], ['erased', 'erased']];

export function amounts({ rows }) {
  return { delivered: rows.delivered, unchanged: rows.unchanged, flying: rows.in_flight, waiting: rows.waiting, dead: rows.dead + rows.damaged, rejected: rows.rejected, cancelled: rows.cancelled, erased: rows.erased ?? 0 };
}

// Where the rows are, as one bar. A part that is there is never too thin to be seen.
export function bar(delivery) {
  const of = amounts(delivery), all = Math.max(1, delivery.rows_in);
  const parts = KINDS.filter(([kind]) => of[kind] > 0);
  const text = parts.map(([kind, name]) => `${number(of[kind])} ${name}`).join(', ') || 'no rows';
  return h('div', { class: 'stack', role: 'img', 'aria-label': text, title: text },
    parts.filter(([kind]) => kind !== 'waiting').map(([kind]) => h('span', { key: kind, class: kind, styles: { flex: `0 1 ${(100 * of[kind] / all).toFixed(2)}%` } })));
}

// What the colours mean; for one delivery, those that its bar has.
export const legend = of => h('ul', { class: 'key', 'aria-hidden': 'true' }, KINDS.filter(([kind]) => !of || amounts(of)[kind]).map(([kind, name]) => h('li', { class: kind }, name)));

// A button that works once at a time.
export const button = (text, work, given) => h('button', { type: 'button', ...given, on: { click: (_, node) => during(node, work) } }, text);

export const empty = (...text) => h('p', { class: 'empty' }, text);
export const loading = () => h('p', { class: 'empty' }, 'Loading…');
export const problem = text => h('p', { class: 'notice bad', role: 'alert' }, text);

// A list of terms; those without a value are left out.
export const facts = list => h('dl', null, list.filter(Boolean).map(([term, value, name, kind]) => h('div', { key: term }, h('dt', null, term), h('dd', { 'data-of': name, class: kind }, value))));

export const heading = (text, ...more) => h('div', { class: 'bar head' }, h('h1', { tabindex: '-1' }, text), more);

// A table that may be wider than the page; whoever has no mouse can reach it to scroll.
export const scrolled = (name, node) => h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': name }, node);

// One line for each delivery. Columns that need room go first when there is none.
export function table(deliveries, now, caption) {
  return scrolled(caption, h('table', { class: 'deliveries' },
    h('caption', { class: 'unseen' }, caption),
    h('thead', null, h('tr', null, ['State', 'Schedule', 'Rows', 'Delivered, rejected, dead', 'Received', 'Took', 'Rate'].map((name, at) => h('th', { scope: 'col', class: [null, null, 'figure', 'where', null, 'figure', 'figure optional'][at] }, name)))),
    h('tbody', null, deliveries.map(d => h('tr', { key: d.id, class: d.level === 'attention' ? 'care' : '' },
      h('td', null, standing(d)),
      h('td', { class: 'name' }, link(`/deliveries/${d.id}`, { 'data-of': 'title' }, titled(d)), h('span', { class: 'quiet under' }, d.destination_label)),
      h('td', { class: 'figure', 'data-of': 'rows_in' }, number(d.rows_in)),
      h('td', { class: 'where' }, bar(d), h('span', { class: 'quiet under' }, outcome(d, now))),
      h('td', null, when(d.received, now)),
      h('td', { class: 'figure' }, took(d, now)),
      h('td', { class: 'figure optional' }, rowRate(d, now) ? `${number(rowRate(d, now))}/s` : '–'))))));
}

// What became of the rows, in the fewest words.
export function outcome(d, now) {
  const of = amounts(d), said = [];
  if (of.dead) said.push(`${number(of.dead)} dead`);
  if (of.rejected) said.push(`${number(of.rejected)} rejected`);
  if (of.cancelled) said.push(`${number(of.cancelled)} cancelled`);
  if (of.erased) said.push(`${number(of.erased)} erased`);
  if (d.held && isOpen(d)) said.push('held: release or cancel it');
  else if (isOpen(d)) said.push(d.blocked ? 'blocked' : d.seconds_left == null ? `${number(of.waiting + of.flying)} to go` : `${span(d.seconds_left)} to go`);
  else if (!said.length && of.unchanged) said.push(`${number(of.unchanged)} unchanged`);
  return said.join(' · ');
}

export const rowsOf = d => count(d.rows_in, 'row');
