// What each schedule brings, how often, and what is not as usual.

import { h, link } from './dom.js';
import { clock, count, every, exact, number, span } from './format.js';
import { query, read } from './api.js';
import { badge, empty, heading, loading, scrolled, titled, when } from './parts.js';

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

export default function schedules() {
  let list = null, more = 0;
  return {
    title: () => 'Schedules',
    every: 5000,
    async refresh() { ({ schedules: list, left_out: more } = await read('api/v1/schedules')); },
    draw(pulse) {
      const now = pulse.overview.now;
      if (!list) return [heading('Schedules'), loading()];
      // What is not as usual stands on top.
      const rank = one => (one.late ? 0 : one.unusual ? 1 : 2);
      const sorted = list.toSorted((a, b) => rank(a) - rank(b));
      return [
        heading('Schedules'),
        h('p', { class: 'quiet' }, 'Looker names no schedule, so those with one title and one destination count as one. The bars are the last runs: their height the rows, their colour what became of them.'),
        sorted.length ? scrolled('Schedules', h('table', null,
          h('caption', { class: 'unseen' }, 'Schedules'),
          h('thead', null, h('tr', null, ['Schedule', 'Last runs', 'Usual', 'Last', 'Next expected', 'Noticed'].map(name => h('th', { scope: 'col' }, name)))),
          h('tbody', null, sorted.map(one => h('tr', { key: `${one.title} ${one.destination}`, class: one.late ? 'care' : '' },
            h('td', { class: 'name' }, link(query('/deliveries', { schedule: one.title }), { 'data-of': 'title' }, titled(one)), h('span', { class: 'quiet under' }, one.destination_label)),
            h('td', null, runs(one)),
            h('td', null, one.usual_rows == null ? '–' : count(one.usual_rows, 'row'), h('span', { class: 'quiet under' }, one.usual_seconds == null ? (one.usual_rows == null ? 'too few runs' : 'no regular times') : every(one.usual_seconds))),
            h('td', null, when(one.runs[0].received, now), h('span', { class: 'quiet under' }, count(one.runs[0].rows_in, 'row'))),
            h('td', null, one.next_expected == null ? '–' : h('time', { datetime: new Date(one.next_expected).toISOString(), title: exact(one.next_expected) }, clock(one.next_expected)), one.late ? h('span', { class: 'under bad' }, `${span((now - one.next_expected) / 1000)} late`) : null),
            h('td', { class: 'state' }, marks(one))))))) : empty('None yet: a schedule appears with its first delivery.'),
        more ? h('p', { class: 'quiet' }, `${count(more, 'more schedule')} whose last delivery is older: `, link('/deliveries', null, 'all deliveries')) : null,
      ];
    },
  };
}
