// Deliveries of which nothing was sent: why, and what is done about each.

import { h, outward } from './dom.js';
import { change, query, read } from './api.js';
import { clock, count, number, size } from './format.js';
import { badge, button, empty, heading, loading, titled, when } from './parts.js';

const LIMIT = 50;

// What kind of failure it was, in words.
const REASONS = {
  request: 'The request was wrong', cut: 'The stream broke off', looker: 'Looker did not give the rows', address: 'The address may not be fetched', query: 'Looker’s query failed',
  document: 'The document is not whole', columns: 'The columns do not fit', rows: 'No row can be sent', changes: 'Only changes cannot be sent', disk: 'The disk failed',
  refusing: 'The outbox refused', busy: 'Too much at once', stopping: 'The daemon was being stopped', program: 'A mistake in looker-feed', missed: 'It never came', interrupted: 'The daemon ended in the middle',
};

const AGAIN = { waiting: ['Will be asked for again', 'warn'], asking: ['Looker is being asked', 'flow'], asked: ['Looker runs it again', 'flow'], done: ['Came in after all', 'good'], given_up: ['Given up', 'bad'], called_off: ['Not needed any more', ''] };

function state(one) {
  const [name, kind] = one.again ? AGAIN[one.again.state] ?? [one.again.state, ''] : ['Failed', 'bad'];
  return badge(name, kind);
}

// What is done about it, and what a person can do.
function next({ again, why_not, passing }) {
  if (again?.state === 'waiting' && again.next) return `Looker is asked for it again at ${clock(again.next, true)}${again.most ? `, for the ${again.count + 1}. of ${again.most} times` : ''}.${again.why ? ` ${again.why}` : ''}`;
  if (again) return again.why ?? '';
  const send = passing ? 'It may well succeed another time: send it again from Looker.' : 'Mend the cause, then send it again from Looker.';
  return why_not ? `${send} ${why_not}` : send;
}

export default function failed({ refresh }) {
  let list = null, after = null;
  const at = (one, verb) => `api/v1/failed-deliveries/${encodeURIComponent(one.id)}/${verb}`;
  const act = work => async () => { const done = await work(); await refresh(); return done; };
  const part = from => read(query('api/v1/failed-deliveries', { limit: LIMIT, after: from }));
  return {
    title: () => 'Failed deliveries',
    every: 3000,
    async refresh() {
      // What was read on demand stays until the page is left.
      if (list && list.length > LIMIT) return;
      const got = await part();
      list = got.items;
      after = got.next;
    },
    draw(pulse) {
      const now = pulse.overview.now;
      if (!list) return [heading('Failed deliveries'), loading()];
      return [
        heading('Failed deliveries'),
        h('p', { class: 'quiet' }, 'A delivery is all or nothing: of these nothing was sent, and Looker was told why.'),
        list.length ? h('div', { id: 'failed' }, list.map(one => h('article', { class: 'card group', key: one.id },
          h('div', { class: 'bar' }, h('h2', { 'data-of': 'title' }, titled(one)), state(one)),
          h('p', { class: 'problem', 'data-of': 'reason' }, REASONS[one.reason] ?? one.reason, ': ', one.message),
          h('p', { class: 'quiet' }, 'Received ', when(one.received, now), ', failed ', when(one.ended, now), ` after ${count(one.rows, 'row')}, ${size(one.bytes)}`, one.instance ? ` · from ${one.instance}` : '', one.link ? [' · ', outward(one.link, 'Open in Looker') ?? ''] : null),
          h('p', null, next(one)),
          one.again?.tries?.length ? h('p', { class: 'quiet' }, `Asked ${count(one.again.count, 'time')}, last at ${clock(one.again.tries[one.again.tries.length - 1].at, true)}`) : null,
          one.again && !['done', 'called_off'].includes(one.again.state) ? h('div', { class: 'buttons' },
            button('Ask Looker now', act(() => change(at(one, 'ask-again'))), { class: 'primary', 'data-do': 'ask' }),
            one.again.state === 'given_up' ? null : button('Do not ask', act(() => change(at(one, 'do-not-ask'))), { 'data-do': 'stop' })) : null)))
          : empty('None. A delivery that breaks off, or that the disk or Looker fails, stands here with its reason.'),
        after ? button('Show more', async () => { const got = await part(after); list = list.concat(got.items); after = got.next; }) : null,
        list.length ? h('p', { class: 'quiet' }, `${number(list.length)} shown, newest first.`) : null,
      ];
    },
  };
}
