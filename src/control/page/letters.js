// Batches that mParticle refused for good, by reason: look at one, act on all of a kind.

import { h, link } from './dom.js';
import { count, number, size } from './format.js';
import { download, query, read } from './api.js';
import { button, empty, heading, loading, titled, when } from './parts.js';
import { batch, discard, edit, replay } from './actions.js';

const LIMIT = 25;

export default function letters({ params, refresh, redraw }) {
  let of = params.get('delivery') ?? '', groups = null, partial = false, list = null, next = null, seen = null;
  const opened = new Map();
  const act = work => async () => { const done = await work(); seen = null; await refresh(); return done; };
  const more = async after => {
    const part = await read(query('api/v1/dead-letters', { delivery: of, after, limit: after ? LIMIT : Math.min(500, Math.max(LIMIT, list?.length ?? 0)) }));
    list = after ? list.concat(part.items) : part.items;
    next = part.next;
    redraw();
  };
  const look = letter => async () => {
    if (opened.has(letter.id)) opened.delete(letter.id);
    else opened.set(letter.id, await batch(letter.id));
    redraw();
  };
  const all = () => of ? { delivery: of } : { all: true };

  const group = (one, now) => h('article', { class: 'card group', key: one.reason },
    h('div', { class: 'bar' }, h('h3', { class: 'problem' }, one.example), h('span', { class: 'quiet' }, `${count(one.count, 'batch', 'batches')}, ${count(one.rows, 'row')}`)),
    h('p', { class: 'quiet' }, one.newest ? ['Last sent ', when(one.newest, now), ' · '] : null, 'of ', one.deliveries.slice(0, 3).map(([id, title], at) => [at ? ', ' : '', link(`/deliveries/${id}`, null, titled({ title }))]), one.delivery_count > 3 ? ` and ${count(one.delivery_count - 3, 'other')}` : ''),
    of ? null : h('div', { class: 'buttons' },
      button(`Replay ${one.count === 1 ? 'it' : `all ${number(one.count)}`}`, act(() => replay({ reason: one.reason })), { class: 'primary' }),
      button(`Discard ${one.count === 1 ? 'it' : `all ${number(one.count)}`}`, act(() => discard({ reason: one.reason }, `${count(one.count, 'batch', 'batches')} with this reason`)), { class: 'danger' })));

  const letter = (one, now) => h('article', { class: 'card split', key: one.id },
    h('div', { class: 'said' },
      h('h3', { 'data-of': 'title' }, link(`/deliveries/${one.delivery}`, null, titled(one))),
      h('p', { class: 'problem', 'data-of': 'reason' }, one.reason),
      h('p', { class: 'quiet' }, `${count(one.rows, 'row')}, ${size(one.bytes)}, sent ${one.attempts === 1 ? 'once' : `${number(one.attempts)} times`}, last `, when(one.last_try, now), one.may_have_arrived ? ' · mParticle may have it: no answer refused it' : '')),
    h('div', { class: 'buttons' },
      button('Replay', act(() => replay({ ids: [one.id] })), { 'data-do': 'replay' }),
      button(opened.has(one.id) ? 'Hide the batch' : 'Show the batch', look(one), { 'data-do': 'show', 'aria-expanded': String(opened.has(one.id)) }),
      button('Edit', () => edit(one, async () => { seen = null; await refresh(); }), { 'data-do': 'edit' }),
      button('Discard', act(() => discard({ ids: [one.id] }, `this batch with ${count(one.rows, 'row')} of “${titled(one)}”`)), { class: 'danger', 'data-do': 'discard' })),
    opened.has(one.id) ? h('pre', { tabindex: '0' }, opened.get(one.id)) : null);

  return {
    title: () => 'Dead letters',
    every: 2000,
    moved(from) { of = from.get('delivery') ?? ''; list = groups = null; },
    async refresh() {
      const got = await read(query('api/v1/dead-letters/groups', { delivery: of }));
      groups = got.groups;
      partial = got.partial;
      const total = groups.reduce((sum, one) => sum + one.count, 0);
      if (total !== seen || !list) { await more(); seen = total; }
    },
    draw(pulse) {
      const now = pulse.overview.now;
      if (!groups || !list) return [heading('Dead letters'), loading()];
      const none = !list.length;
      return [
        heading(of ? `Dead letters of “${titled(list[0] ?? { title: 'this delivery' })}”` : 'Dead letters', h('div', { class: 'buttons', id: 'dead-buttons', hidden: none },
          button('Replay all', act(() => replay(all())), { 'data-do': 'replay-all' }),
          button('Download', () => download(query('api/v1/dead-letters/export', { delivery: of }), 'looker-feed-dead-letters.jsonl')),
          button('CSV', () => download(query('api/v1/dead-letters', { delivery: of, format: 'csv' }), 'looker-feed-dead-letters.csv'), { 'data-do': 'csv' }),
          button('Discard all', act(() => discard(all(), of ? 'all dead letters of this delivery' : 'all dead letters')), { class: 'danger', 'data-do': 'discard-all' }))),
        of ? h('p', null, link('/dead-letters', null, 'Those of all deliveries')) : null,
        none ? h('p', { class: 'empty', id: 'no-dead' }, 'None. Batches that mParticle refuses for good wait here for you, with its words: mend the cause, then replay them.') : [
          h('section', { 'aria-labelledby': 'h-groups', id: 'groups' }, h('h2', { id: 'h-groups' }, count(groups.length, 'reason')), partial ? h('p', { class: 'quiet' }, 'There are so many that only the first were counted.') : null, groups.map(one => group(one, now))),
          h('section', { 'aria-labelledby': 'h-each', id: 'letters' }, h('h2', { id: 'h-each' }, 'One by one'), list.map(one => letter(one, now)), next ? button('Show more', () => more(next), { 'data-do': 'more-dead' }) : null),
        ],
      ];
    },
  };
}
