// Deliveries of which nothing was sent: why, and what is done about each.

import { h, link, outward } from './dom.js';
import { change, download, query, read } from './api.js';
import { clock, count, size, span } from './format.js';
import { Filters } from './filters.js';
import { badge, button, empty, heading, loading, titled, when } from './parts.js';

const LIMIT = 25;

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
function next({ again, why_not, passing, repeat_of }) {
  if (repeat_of) return [`This was try ${repeat_of.number} for `, link(query('/failed-deliveries', { id: repeat_of.delivery }), null, 'a delivery that had failed'), ', which says what is done.'];
  if (again?.state === 'waiting' && again.next) return `Looker is asked for it again at ${clock(again.next, true)}${again.most ? `: try ${again.count + 1} of ${again.most}` : ''}.${again.why ? ` ${again.why}` : ''}`;
  if (again) return again.why ?? '';
  const send = passing ? 'It may well succeed another time: send it again from Looker.' : 'Mend the cause, then send it again from Looker.';
  return why_not ? `${send} ${why_not}` : send;
}

function tries({ again }) {
  if (!again?.tries?.length) return null;
  const first = again.count - again.tries.length + 1;
  const came = one => {
    if (one.committed) return ['it came in: ', link(`/deliveries/${one.delivery}`, null, 'see it')];
    if (one.committed === false) return ['it failed too: ', link(query('/failed-deliveries', { id: one.delivery }), null, 'see why')];
    if (one.delivery) return 'it is coming in';
    return one.plan ? 'Looker runs it' : 'no answer says what came of it';
  };
  return h('ul', { class: 'notes' }, again.tries.map((one, at) => h('li', { key: at }, `Try ${first + at}, at ${clock(one.at, true)}: `, came(one))));
}

const OPEN = ['waiting', 'asking', 'asked'];

export default function failed({ params, go, refresh }) {
  const filters = new Filters('/failed-deliveries', params, go);
  let id = params.get('id'), list = null;
  const at = (one, verb) => `api/v1/failed-deliveries/${encodeURIComponent(one.id)}${verb ? `/${verb}` : ''}`;
  const act = work => async () => { const done = await work(); await refresh(); return done; };
  const csv = () => download(query('api/v1/failed-deliveries', { ...filters.asked, format: 'csv' }), 'looker-feed-failed-deliveries.csv');
  function buttons(one, lookers) {
    if (one.repeat_of) return null;
    const now = one.again?.state, open = OPEN.includes(now);
    const ask = lookers.length && one.schedule && !['asking', 'asked', 'done'].includes(now);
    const dismiss = !now || now === 'given_up';
    return ask || open || dismiss ? h('div', { class: 'buttons' },
      ask ? button('Ask Looker again now', act(() => change(at(one, 'ask-again'))), { class: 'primary', 'data-do': 'ask' }) : null,
      open ? button('Do not ask', act(() => change(at(one, 'do-not-ask'))), { 'data-do': 'stop' }) : null,
      dismiss ? button('Dismiss', act(() => change(at(one, 'do-not-ask'))), { 'data-do': 'dismiss' }) : null) : null;
  }
  return {
    title: () => 'Failed deliveries',
    every: 3000,
    moved(from) { filters.take(from); id = from.get('id'); list = null; },
    async refresh() {
      const asked = filters.wanted, one = id;
      const got = one ? { items: [await read(at({ id: one }))] } : await read(query('api/v1/failed-deliveries', { ...filters.asked, after: asked.after, limit: LIMIT }));
      if (asked === filters.wanted && one === id) list = got;
    },
    draw(pulse) {
      const { now, ask_again, destinations } = pulse.overview, lookers = ask_again?.lookers ?? [];
      if (id && !list) return [heading('Failed deliveries'), this.problem ? link('/failed-deliveries', null, 'All failed deliveries') : loading()];
      return [
        id ? h('p', { class: 'crumbs' }, link('/failed-deliveries', null, 'Failed deliveries')) : null,
        heading('Failed deliveries', list?.items.length && !id ? button('CSV', csv, { 'data-do': 'csv' }) : null),
        h('p', { class: 'quiet' }, 'A delivery is all or nothing: none of these was sent, and Looker was told why.'),
        lookers.filter(one => one.trouble || one.blind).map(one => h('p', { class: 'notice', key: one.host }, `Looker at ${one.host}: `, one.trouble ?? `What failed while looker-feed was away is not looked for: ${one.blind}`)),
        id ? null : filters.form(destinations),
        list == null ? loading()
          : list.items.length ? h('div', { id: 'failed-list' }, list.items.map(one => h('article', { class: 'card split', key: one.id },
            h('div', { class: 'said' },
              h('div', { class: 'bar' }, h('h2', { 'data-of': 'title' }, titled(one)), state(one)),
              h('p', { class: 'problem', 'data-of': 'reason' }, REASONS[one.reason] ?? one.reason, ': ', one.message),
              h('p', { class: 'quiet' }, 'Failed ', when(one.ended, now), `, after ${span((one.ended - one.received) / 1000)}, ${count(one.rows, 'row')}, ${size(one.bytes)}`, one.instance ? ` · from ${one.instance}` : '', one.link ? [' · ', outward(one.link, 'Open in Looker') ?? ''] : null),
              h('p', { class: 'next', 'data-of': 'next' }, next(one)),
              tries(one)),
            buttons(one, lookers))))
            : filters.narrowed ? empty('No failed delivery is like that. ', link('/failed-deliveries', null, 'Show all'))
              : empty('None. A delivery that breaks off, or that the disk or Looker fails, stands here with its reason.'),
        list && !id ? filters.pages(list.next) : null,
      ];
    },
  };
}
