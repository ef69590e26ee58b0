// The whole history, one line each, by filter.

import { link } from './dom.js';
import { download, query, read } from './api.js';
import { count } from './format.js';
import { Filters } from './filters.js';
import { button, empty, heading, legend, loading, table } from './parts.js';

const STATES = [['', 'All'], ['open', 'Open'], ['held', 'Held'], ['delivered', 'Delivered'], ['incomplete', 'Incomplete'], ['dead_letters', 'Dead letters'], ['cancelled', 'Cancelled']];
const LIMIT = 50;

export default function deliveries({ params, go }) {
  const filters = new Filters('/deliveries', params, go, STATES);
  let list = null;
  const csv = () => download(query('api/v1/deliveries', { ...filters.asked, format: 'csv' }), 'looker-feed-deliveries.csv');
  return {
    title: () => 'Deliveries',
    every: 2000,
    moved(from) { filters.take(from); list = null; },
    async refresh() {
      const asked = filters.wanted;
      const got = await read(query('api/v1/deliveries', { ...filters.asked, after: asked.after, limit: LIMIT }));
      if (asked === filters.wanted) list = got;
    },
    draw(pulse) {
      const now = pulse.overview;
      return [
        heading('Deliveries', now.failures?.on_record ? link('/failed-deliveries', { id: 'to-failed' }, `${count(now.failures.on_record, 'failed delivery', 'failed deliveries')}`) : null, list?.items.length ? button('CSV', csv, { 'data-do': 'csv' }) : null, legend()),
        filters.form(now.destinations, list?.items[0]?.destination_label),
        list == null ? loading()
          : list.items.length ? table(list.items, now.now, 'Deliveries, newest first')
            : filters.narrowed ? empty('No delivery is like that. ', link('/deliveries', null, 'Show all')) : empty('None yet. ', link('/', null, 'What to do first')),
        list ? filters.pages(list.next) : null,
      ];
    },
  };
}
