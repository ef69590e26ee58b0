// What each schedule brings, how often, and what is not as usual.

import { h, link } from './dom.js';
import { clock, count, every, exact, number, span } from './format.js';
import { query, read } from './api.js';
import { badge, empty, heading, loading, scrolled, titled, when } from './parts.js';

const LIMIT = 50;

// The last runs, the oldest first: height for the rows, colour for the outcome.
function runs(schedule) {
  const most = Math.max(1, ...schedule.runs.map(run => run.rows_in));
  return h('div', { class: 'runs', role: 'group', 'aria-label': `The last ${count(schedule.runs.length, 'run')}` }, schedule.runs.toReversed().map(run => {
    const bad = run.rows.dead + run.rows.damaged > 0;
    const text = `${exact(run.received)}: ${count(run.rows_in, 'row')}${bad ? `, ${number(run.rows.dead + run.rows.damaged)} dead` : ''}${run.rows.rejected ? `, ${number(run.rows.rejected)} rejected` : ''}${run.rows.cancelled ? ', cancelled' : ''}`;
    const kind = bad ? 'dead' : run.rows.rejected ? 'rejected' : run.rows.cancelled ? 'cancelled' : run.standing === 'delivered' ? 'delivered' : 'flying';
    return link(`/deliveries/${run.id}`, { key: run.id, class: 'run', title: text, 'aria-label': text }, h('span', { class: kind, styles: { height: `${Math.max(8, 100 * run.rows_in / most).toFixed(0)}%` } }));
  }));
}

function marks(schedule) {
  const said = [];
  if (schedule.late) said.push(badge('Late', 'bad', `Expected ${exact(schedule.next_expected)}`));
  if (schedule.unusual) said.push(badge('Unusual size', 'warn', `${count(schedule.runs[0].rows_in, 'row')} instead of some ${number(schedule.usual_rows)}`));
  if (said.length) return said;
  return schedule.usual_rows == null ? '' : badge('As usual', '', null);
}

// Late and unusual ones stand on top.
const rank = one => (one.late ? 0 : one.unusual ? 1 : 2);
const KINDS = [['', 'All', () => true], ['late', 'Late', one => one.late], ['unusual', 'Unusual', one => one.unusual]];

const row = (one, now) => h('tr', { key: `${one.title} ${one.destination}`, class: one.late ? 'care' : '' },
  h('td', { class: 'name' }, link(query('/deliveries', { schedule: one.title }), { 'data-of': 'title' }, titled(one)), h('span', { class: 'quiet under' }, one.destination_label)),
  h('td', { class: 'of-runs' }, runs(one)),
  h('td', { class: 'figure usual' }, one.usual_rows == null ? '–' : count(one.usual_rows, 'row'), h('span', { class: 'quiet under' }, !(one.usual_seconds >= 60) ? (one.usual_rows == null ? 'too few runs' : 'no regular times') : every(one.usual_seconds))),
  h('td', { class: 'figure last' }, when(one.runs[0].received, now), h('span', { class: 'quiet under' }, count(one.runs[0].rows_in, 'row'))),
  h('td', { class: 'next' }, one.next_expected == null ? '–' : h('time', { datetime: new Date(one.next_expected).toISOString(), title: exact(one.next_expected) }, clock(one.next_expected)), one.late ? h('span', { class: 'under bad' }, `${span((now - one.next_expected) / 1000)} late`) : null),
  h('td', { class: 'marks' }, marks(one)));

export default function schedules({ params, go }) {
  let list = null, more = 0, wanted = taken(params), typing;
  function taken(from) { return { state: from.get('state') ?? '', search: from.get('search') ?? '', skip: Math.max(0, Number.parseInt(from.get('skip') ?? '', 10) || 0) }; }
  const to = (changed, replace = true) => go(query('/schedules', { ...wanted, skip: '', ...changed }), replace);
  return {
    title: () => 'Schedules',
    every: 5000,
    moved(from) { wanted = taken(from); },
    async refresh() { ({ schedules: list, left_out: more } = await read('api/v1/schedules')); },
    draw(pulse) {
      const now = pulse.overview.now;
      if (!list) return [heading('Schedules'), loading()];
      const { state, search, skip } = wanted, words = search.toLowerCase();
      const [, , is] = KINDS.find(([name]) => name === state) ?? KINDS[0];
      const found = list.filter(one => is(one) && one.title.toLowerCase().includes(words)).toSorted((a, b) => rank(a) - rank(b));
      const shown = found.slice(skip, skip + LIMIT);
      const type = (_, node) => { clearTimeout(typing); typing = setTimeout(() => to({ search: node.value.trim() }), 250); };
      return [
        heading('Schedules', list.length ? h('p', { class: 'quiet', id: 'of-all' }, found.length === shown.length ? count(found.length, 'schedule') : `${number(skip + 1)} to ${number(skip + shown.length)} of ${count(found.length, 'schedule')}`) : null),
        h('p', { class: 'quiet' }, 'Deliveries with one title to one destination are one schedule. A bar is a run: its height the rows, its colour what became of them.'),
        list.length ? h('form', { class: 'filters', role: 'search', on: { submit: event => event.preventDefault() } },
          h('div', { class: 'choice', role: 'group', 'aria-label': 'Which' }, KINDS.map(([name, text, of]) => h('button', { type: 'button', 'aria-pressed': String(state === name), on: { click: () => to({ state: name }) } }, name ? `${text} ${number(list.filter(of).length)}` : text))),
          h('input', { type: 'search', placeholder: 'Title', 'aria-label': 'Search by title', value: search, autocomplete: 'off', maxlength: 400, on: { input: type } })) : null,
        shown.length ? scrolled('Schedules', h('table', { class: 'schedules' },
          h('caption', { class: 'unseen' }, 'Schedules'),
          h('thead', null, h('tr', null, ['Schedule', 'Last runs', 'Usual', 'Last', 'Next expected', 'Noticed'].map((name, at) => h('th', { scope: 'col', class: at === 2 || at === 3 ? 'figure' : null }, name)))),
          h('tbody', null, shown.map(one => row(one, now)))))
          : list.length ? empty('No schedule is like that. ', link('/schedules', null, 'Show all')) : empty('None yet: a schedule appears with its first delivery.'),
        found.length > shown.length ? h('div', { class: 'bar pages' },
          skip ? h('button', { type: 'button', on: { click: () => to({ skip: Math.max(0, skip - LIMIT) || '' }) } }, 'Before') : h('span'),
          skip + LIMIT < found.length ? h('button', { type: 'button', id: 'more-schedules', on: { click: () => to({ skip: skip + LIMIT }, false) } }, 'More') : null) : null,
        more ? h('p', { class: 'quiet' }, `${count(more, 'more schedule')} whose last delivery is older: `, link('/deliveries', null, 'all deliveries')) : null,
      ];
    },
  };
}
