// Where requests go: how each account stands, and how fast.

import { h, link } from './dom.js';
import { clock, exact, finish, number, pace, size, span } from './format.js';
import { query } from './api.js';
import { button, empty, facts, heading, isStuck, stateOf, when } from './parts.js';
import { pauseDestination, resumeDestination, tryNow } from './actions.js';

function meter(d) {
  const share = Math.min(100, 100 * d.accepted_rate / d.limit);
  return h('div', { class: 'meter', role: 'meter', 'aria-label': 'Accepted, of the limit', 'aria-valuemin': '0', 'aria-valuemax': d.limit, 'aria-valuenow': Math.min(d.accepted_rate, d.limit).toFixed(1) }, h('span', { styles: { width: `${share.toFixed(1)}%` } }));
}

function why(d, now) {
  if (!d.why) return '';
  const next = d.next_try > now ? ` Next try in ${span((d.next_try - now) / 1000)}, at ${clock(d.next_try, true)}.` : '';
  const since = d.since ? ` Since ${clock(d.since)}, for ${span((now - d.since) / 1000)}.` : '';
  const text = d.why.trim();
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.!?…]$/.test(text) ? '' : '.'}${since}${next}`;
}

const acts = d => h('div', { class: 'buttons' },
  // One button in two states keeps the focus.
  d.state === 'paused' ? button('Resume', () => resumeDestination(d), { class: 'primary', 'data-do': 'resume', 'aria-label': `Resume: ${d.label}` })
    : button('Pause', () => pauseDestination(d), { 'data-do': 'pause', 'aria-label': `Pause: ${d.label}` }),
  d.state === 'waiting' || d.state === 'down' ? button('Try now', () => tryNow(d), { 'data-do': 'retry', 'aria-label': `Try now: ${d.label}` }) : null,
  link(query('/deliveries', { destination: d.id }), { class: 'button' }, 'Its deliveries'));

function card(d, now) {
  const busy = d.batches > 0 || d.in_flight > 0;
  const stuck = isStuck(d);
  // Of one that has nothing to do there is little to say.
  const idle = !busy && d.state === 'idle';
  const replies = Object.entries(d.replies).filter(([, n]) => n).map(([kind, n]) => `${kind.replaceAll('_', ' ')} ${number(n)}`).join(' · ');
  return h('article', { class: 'card', key: d.id },
    h('div', { class: 'bar' }, h('h2', { 'data-of': 'label' }, d.label), stateOf(d)),
    h('p', { class: `why ${stuck && d.state === 'paused' ? 'bad' : ''}` }, why(d, now)),
    // A destination that sends nothing has no speed.
    busy && !stuck && d.limit ? [meter(d), h('p', { class: 'quiet', 'data-of': 'pace' }, `${pace(d.accepted_rate)} of ${pace(d.limit)} batches a second${d.rate < d.heading * 0.98 ? `; the pace is ${pace(d.rate)} and grows` : ''}`)] : null,
    facts([
      ['Accepted now', busy && !stuck ? `${pace(d.accepted_rate)}/s` : '–', 'accepted'],
      idle ? null : ['Batches waiting', number(d.batches), 'batches'], idle ? null : ['Rows waiting', number(d.rows), 'rows'],
      idle ? null : ['Time to finish', !busy ? '–' : stuck ? 'waits' : d.seconds_left == null ? 'not known yet' : finish(d.seconds_left, now), 'left'],
      idle ? null : ['Oldest', d.oldest ? span((now - d.oldest) / 1000) : '–'], idle ? null : ['On disk', size(d.bytes)], idle ? null : ['Requests in flight', number(d.in_flight)],
      ['Reply time', d.latency_mean_ms ? h('span', { title: `99 of 100 below ${number(d.latency_p99_ms)} ms` }, `${number(d.latency_mean_ms)} ms`) : '–'],
      ['Last accepted', d.last_success ? when(d.last_success, now) : 'not yet', 'success'],
    ]),
    replies ? h('p', { class: 'quiet' }, `Replies since the start: ${replies}`) : null,
    d.last_error ? h('p', { class: 'quiet', hidden: stuck }, 'Last complaint: ', h('span', { class: 'problem' }, d.last_error)) : null,
    acts(d));
}

export default function destinations() {
  return {
    title: () => 'Destinations',
    draw({ overview: now }) {
      const rank = { paused: 0, down: 1, waiting: 2, flowing: 3, idle: 4 };
      const sorted = now.destinations.toSorted((a, b) => rank[a.state] - rank[b.state] || (a.label < b.label ? -1 : 1));
      return [
        heading('Destinations'),
        h('p', { class: 'quiet' }, 'A destination is an mParticle account: one key at one data center. Deliveries to one are sent one after the other.'),
        sorted.length ? h('div', { class: 'cards', id: 'destinations' }, sorted.map(d => card(d, now.now))) : empty('None yet: a destination appears with its first delivery.'),
        h('section', { class: 'card', 'aria-labelledby': 'h-outbox' }, h('h2', { id: 'h-outbox' }, 'Outbox'),
          facts([
            ['On disk', now.outbox.max_bytes ? `${size(now.outbox.bytes)} of ${size(now.outbox.max_bytes)}` : size(now.outbox.bytes)], ['Free on its disk', size(now.outbox.free_bytes)],
            ['Dead letters', number(now.outbox.dead_letters)], ['Rejected rows', number(now.outbox.rejected_rows)],
            now.outbox.set_aside_bytes ? ['Damaged, kept', size(now.outbox.set_aside_bytes), '', 'warn'] : null,
            ['Up since', h('time', { title: exact(now.started), datetime: new Date(now.started).toISOString() }, clock(now.started))],
          ])),
      ];
    },
  };
}
