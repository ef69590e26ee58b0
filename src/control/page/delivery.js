// One delivery: what became of it, step by step, and where every row is.

import { h, link, outward } from './dom.js';
import { clock, count, exact, number, span } from './format.js';
import { download, query, read } from './api.js';
import { amounts, bar, button, facts, heading, isOpen, left, legend, loading, rowRate, standing, titled, took, when } from './parts.js';
import { cancel, discard, release, replay } from './actions.js';

const FEW = 25;

function step(name, state, at, now, ...text) {
  return h('li', { class: state, key: name }, h('h2', null, name), at ? h('time', { datetime: new Date(at).toISOString(), title: exact(at), class: 'quiet' }, clock(at, true)) : null, h('p', null, text));
}

function timeline(d, now) {
  const open = isOpen(d), of = amounts(d);
  const sent = d.batches_delivered;
  return h('ol', { class: 'timeline', 'aria-label': 'What became of it' },
    step('Received', 'done', d.received, now, `${count(d.rows_in, 'row')} of ${count(d.users, 'user')}`),
    step('Safe on disk', 'done', d.committed || null, now, `${d.committed ? `after ${span((d.committed - d.received) / 1000)}: ` : ''}${count(d.requests, 'request')} with ${count(d.batches, 'batch', 'batches')}; Looker was told “success”`),
    step('Sending', open ? (d.blocked || d.held ? 'held' : 'now') : 'done', null, now, open && d.held ? d.notes.find(note => note.startsWith('Held: ')) ?? 'Held, since its size is unusual, until somebody releases it.' : open && d.blocked ? d.blocked : `${number(sent)} of ${count(d.batches, 'batch', 'batches')} accepted${rowRate(d, now.now) ? `, ${number(rowRate(d, now.now))} rows/s` : ''}`),
    open ? step('Done', 'later', null, now, d.held ? 'when it is released' : d.seconds_left == null ? (d.blocked ? 'when it goes on' : 'not known yet') : `in ${left(d, now.now)}`)
      : step({ cancelled: 'Cancelled', incomplete: 'Over, incomplete' }[d.standing] ?? 'Done', of.dead ? 'held' : 'done', d.finished, now, `after ${took(d, now.now)}`));
}

export default function delivery({ args: [id], refresh }) {
  const at = `api/v1/deliveries/${encodeURIComponent(id)}`;
  let d = null, rows = null, groups = null;
  const act = work => async () => { const done = await work(); await refresh(); return done; };
  const rejected = async after => {
    const part = await read(query(`${at}/rejected`, { limit: FEW, after }));
    rows = { items: after ? rows.items.concat(part.items) : part.items, next: part.next };
  };
  return {
    title: () => d ? titled(d) : 'Delivery',
    every: 1000,
    async refresh() {
      d = await read(at);
      if (d.rows.rejected && !rows) await rejected();
      groups = d.dead_waiting ? (await read(query('api/v1/dead-letters/groups', { delivery: id }))).groups : null;
    },
    draw(pulse) {
      if (!d) return this.problem ? link('/deliveries', null, 'All deliveries') : loading();
      const now = pulse.overview, of = amounts(d), open = isOpen(d);
      return [
        h('p', { class: 'crumbs' }, link('/deliveries', null, 'Deliveries'), ' / ', link(query('/deliveries', { schedule: d.title }), null, 'this schedule')),
        heading(titled(d), standing(d)),
        h('p', { class: 'quiet' }, 'To ', d.destination_label, ' · received ', when(d.received, now.now), d.link ? [' · ', outward(d.link, 'Open in Looker') ?? ''] : null),
        d.repeat_of ? h('p', { id: 'repeat', class: 'quiet' }, `Looker was asked for it: try ${d.repeat_of.number} for `, link(query('/failed-deliveries', { id: d.repeat_of.delivery }), null, 'a delivery that had failed')) : null,
        h('div', { class: 'buttons actions' },
          d.held && open ? button('Release', act(() => release(d)), { class: 'primary', 'data-do': 'release' }) : null,
          d.rows.waiting ? button(d.rows.delivered ? 'Cancel the rest' : 'Cancel', act(() => cancel(d)), { class: 'danger', 'data-do': 'cancel' }) : null),
        timeline(d, now),
        h('section', { class: 'card', 'aria-labelledby': 'h-rows' }, h('div', { class: 'bar' }, h('h2', { id: 'h-rows' }, 'Where the rows are'), legend(d)), bar(d),
          facts([
            ['Rows in', number(d.rows_in), 'rows_in'], ['Delivered', number(of.delivered), 'delivered'],
            ['Waiting', number(of.waiting + of.flying), 'waiting'],
            ['Rejected', number(of.rejected), 'rejected', of.rejected ? 'warn' : ''], ['Dead', number(of.dead), 'dead', of.dead ? 'bad' : ''],
            of.unchanged ? ['Unchanged', number(of.unchanged), 'unchanged'] : null, of.cancelled ? ['Cancelled', number(of.cancelled), 'cancelled'] : null, of.erased ? ['Erased', number(of.erased), 'erased'] : null,
            d.rows.damaged ? ['Of them damaged', number(d.rows.damaged), 'damaged', 'bad'] : null,
            ['Users', number(d.users), 'users'], ['Batches', d.batches_delivered === d.batches ? number(d.batches) : `${number(d.batches_delivered)} of ${number(d.batches)}`, 'batches'],
            ['Requests', number(d.requests)], [open ? 'Time to finish' : 'Took', !open ? took(d, now.now) : d.blocked ? 'waits' : left(d, now.now), 'left'],
          ])),
        d.notes.length ? h('section', { class: 'card', 'aria-labelledby': 'h-notes' }, h('h2', { id: 'h-notes' }, 'Notes'), h('ul', { class: 'notes' }, d.notes.map(text => h('li', null, text)))) : null,
        groups?.length ? h('section', { 'aria-labelledby': 'h-dead', key: 'dead' },
          h('div', { class: 'bar' }, h('h2', { id: 'h-dead' }, 'Dead letters'), h('div', { class: 'buttons' },
            button('Replay all of them', act(() => replay({ delivery: id })), { 'data-do': 'replay-all' }),
            button('Download', () => download(query('api/v1/dead-letters/export', { delivery: id }), 'looker-feed-dead-letters.jsonl')),
            button('Discard all of them', act(() => discard({ delivery: id }, `all dead letters of “${titled(d)}”`)), { class: 'danger' }))),
          groups.map(group => h('article', { class: 'card group', key: group.reason }, h('p', { class: 'problem' }, group.example), h('p', { class: 'quiet' }, `${count(group.count, 'batch', 'batches')}, ${count(group.rows, 'row')} · `, link(query('/dead-letters', { delivery: id }), null, 'look at them'))))) : null,
        rows?.items.length ? h('section', { 'aria-labelledby': 'h-rejected', key: 'rejected' },
          h('div', { class: 'bar' }, h('h2', { id: 'h-rejected' }, 'Rejected rows'), h('div', { class: 'buttons' }, button('Download', () => download(`${at}/rejected/export`, 'looker-feed-rejected-rows.jsonl')), button('CSV', () => download(`${at}/rejected?format=csv`, 'looker-feed-rejected-rows.csv'), { 'data-do': 'csv' }))),
          h('div', { id: 'rows-list' }, rows.items.map(row => h('details', { class: 'card row', key: row.row }, h('summary', null, h('span', { class: 'problem' }, `Row ${number(row.row)}: ${row.reason}`)), h('pre', { tabindex: '0' }, row.text)))),
          rows.next ? button('Show more', async () => { await rejected(rows.next); }, { 'data-do': 'more-rows' }) : null) : null,
        h('p', { class: 'quiet ids' }, 'Id ', h('code', null, d.id)),
      ];
    },
  };
}
