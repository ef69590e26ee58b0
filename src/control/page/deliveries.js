// The whole history, one line each, by filter.

import { h, link } from './dom.js';
import { download, query, read } from './api.js';
import { count } from './format.js';
import { button, empty, heading, legend, loading, table } from './parts.js';

const STATES = [['', 'All'], ['open', 'Open'], ['delivered', 'Delivered'], ['incomplete', 'Incomplete'], ['dead_letters', 'Dead letters'], ['cancelled', 'Cancelled']];
const TIMES = [['', 'Any time'], ['3600', 'Last hour'], ['86400', 'Last 24 hours'], ['604800', 'Last 7 days'], ['2592000', 'Last 30 days']];
const NAMES = ['state', 'schedule', 'destination', 'within', 'search', 'after'];
const LIMIT = 50;

export default function deliveries({ params, go }) {
  let wanted = taken(params), list = null, typing;
  function taken(from) { return Object.fromEntries(NAMES.map(name => [name, from.get(name) ?? ''])); }
  function filter() {
    const { state, schedule, destination, search, within } = wanted;
    return { state, schedule, destination, search, from: within ? Math.max(0, Date.now() - 1000 * Number(within)) : '' };
  }
  const csv = () => download(query('api/v1/deliveries', { ...filter(), format: 'csv' }), 'looker-feed-deliveries.csv');
  const to = changed => go(query('/deliveries', { ...wanted, after: '', ...changed }), true);
  return {
    title: () => 'Deliveries',
    every: 2000,
    moved(from) { wanted = taken(from); list = null; },
    async refresh() {
      const asked = wanted;
      const got = await read(query('api/v1/deliveries', { ...filter(), after: wanted.after, limit: LIMIT }));
      if (asked === wanted) list = got;
    },
    draw(pulse) {
      const now = pulse.overview;
      const select = (name, label, choices) => h('label', { class: 'select' }, h('span', { class: 'unseen' }, label),
        h('select', { name, on: { change: (_, node) => to({ [name]: node.value }) } }, choices.map(([value, text]) => h('option', { value, selected: wanted[name] === value }, text))));
      const places = now.destinations.map(d => [d.id, d.label]);
      if (wanted.destination && !places.some(([id]) => id === wanted.destination)) places.push([wanted.destination, list?.items[0]?.destination_label ?? wanted.destination]);
      const filtered = NAMES.slice(0, 5).some(name => wanted[name]);
      return [
        heading('Deliveries', now.failures?.on_record ? link('/failed-deliveries', { id: 'to-failed' }, `${count(now.failures.on_record, 'failed delivery', 'failed deliveries')}`) : null, list?.items.length ? button('CSV', csv, { 'data-do': 'csv' }) : null, legend()),
        h('form', { class: 'filters', role: 'search', on: { submit: event => event.preventDefault() } },
          h('div', { class: 'choice', role: 'group', 'aria-label': 'State' }, STATES.map(([value, text]) => h('button', { type: 'button', 'aria-pressed': String(wanted.state === value), on: { click: () => to({ state: value }) } }, text))),
          h('input', { type: 'search', name: 'search', placeholder: 'Title or id', 'aria-label': 'Search by title or id', value: wanted.search, autocomplete: 'off', maxlength: 400, on: { input: (_, node) => { clearTimeout(typing); typing = setTimeout(() => to({ search: node.value.trim() }), 250); } } }),
          select('destination', 'Destination', [['', 'All destinations'], ...places]),
          select('within', 'Received', TIMES),
          wanted.schedule ? h('button', { type: 'button', class: 'chip', on: { click: () => to({ schedule: '' }) } }, `Schedule: ${wanted.schedule} ✕`) : null),
        list == null ? loading()
          : list.items.length ? table(list.items, now.now, 'Deliveries, newest first')
            : filtered || wanted.after ? empty('No delivery is like that. ', link('/deliveries', null, 'Show all')) : empty('None yet. ', link('/', null, 'What to do first')),
        list && (list.next || wanted.after) ? h('div', { class: 'bar pages' },
          wanted.after ? h('button', { type: 'button', on: { click: () => to({ after: '' }) } }, 'Newest') : h('span'),
          list.next ? h('button', { type: 'button', id: 'older', on: { click: () => go(query('/deliveries', { ...wanted, after: list.next })) } }, 'Older') : null) : null,
      ];
    },
  };
}
