// What is in effect, and where each value comes from.

import { h } from './dom.js';
import { read } from './api.js';
import { empty, heading, loading, scrolled } from './parts.js';

export default function configuration({ redraw }) {
  let list = null, database = null, changed = true, words = '';
  return {
    title: () => 'Configuration',
    every: 60000,
    async refresh() {
      const [keys, now] = await Promise.all([read('api/v1/configuration'), read('api/v1/overview')]);
      list = keys;
      database = now.outbox.database;
    },
    draw() {
      if (!list) return [heading('Configuration'), loading()];
      const shown = list.filter(one => (!changed || one.changed) && one.key.includes(words));
      const sections = Map.groupBy(shown, one => one.key.split('.')[0]);
      return [
        heading('Configuration'),
        h('p', { class: 'quiet' }, 'As it was read at the start. Secrets are not shown. Every key is explained in ', h('code', null, 'config/looker-feed.toml'), '; ', h('code', null, 'looker-feed check-config'), ' checks a new one.'),
        database ? h('p', { id: 'database' }, `The outbox is in ${database}.`) : null,
        h('form', { class: 'filters', role: 'search', on: { submit: event => event.preventDefault() } },
          h('div', { class: 'choice', role: 'group', 'aria-label': 'Which keys' }, [[true, 'Changed'], [false, 'All']].map(([value, text]) => h('button', { type: 'button', 'aria-pressed': String(changed === value), on: { click: () => { changed = value; redraw(); } } }, text))),
          h('input', { type: 'search', placeholder: 'Key', 'aria-label': 'Search keys', on: { input: (_, node) => { words = node.value.trim().toLowerCase(); redraw(); } } })),
        shown.length ? scrolled('Keys in effect', h('table', { class: 'settings' },
          h('caption', { class: 'unseen' }, 'Keys in effect'),
          h('thead', null, h('tr', null, ['Key', 'Value', 'From'].map(name => h('th', { scope: 'col' }, name)))),
          [...sections].map(([section, keys]) => h('tbody', { key: section }, keys.map(one => h('tr', { key: one.key, class: one.changed ? 'changed' : '' },
            h('th', { scope: 'row' }, h('code', null, one.key)),
            h('td', { class: 'value' }, one.secret ? h('span', { class: 'quiet' }, 'set, not shown') : one.value == null || one.value === '' ? h('span', { class: 'quiet' }, 'not set') : h('code', null, one.value)),
            h('td', { class: 'quiet from' }, one.source))))))) : empty(changed && !words ? 'Nothing is changed: the shipped defaults are in effect.' : 'No key is like that.'),
      ];
    },
  };
}
