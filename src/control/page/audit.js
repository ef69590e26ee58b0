// Who did what.

import { h, link } from './dom.js';
import { query, read } from './api.js';
import { badge, button, empty, heading, loading, scrolled, when } from './parts.js';

const LIMIT = 50;

// Method and path, in words; what is not known stays as it is.
const CALLS = [
  [/^POST .*\/dead-letters\/replay$/, () => 'Replayed dead letters'],
  [/^POST .*\/dead-letters\/discard$/, () => 'Discarded dead letters'],
  [/^PUT .*\/dead-letters\/([^/]+)$/, id => `Edited the dead letter ${id}`],
  [/^POST .*\/deliveries\/([^/]+)\/cancel$/, id => ['Cancelled ', link(`/deliveries/${id}`, null, 'a delivery')]],
  [/^POST .*\/deliveries\/([^/]+)\/release$/, id => ['Released ', link(`/deliveries/${id}`, null, 'a delivery')]],
  [/^POST .*\/destinations\/([^/]+)\/pause$/, id => ['Paused ', link(query('/deliveries', { destination: id }), null, 'a destination')]],
  [/^POST .*\/destinations\/([^/]+)\/resume$/, id => ['Resumed ', link(query('/deliveries', { destination: id }), null, 'a destination')]],
  [/^POST .*\/destinations\/([^/]+)\/retry$/, id => ['Tried ', link(query('/deliveries', { destination: id }), null, 'a destination'), ' at once']],
  [/^POST .*\/people\/find$/, () => ['Looked for ', link('/people', null, 'a person')]],
  [/^POST .*\/people\/erase$/, () => ['Began to erase ', link('/people', null, 'a person')]],
  [/^erasure ([0-9a-f]+)$/, id => `Erasure ${id} has ended`],
  [/^reload$/, () => 'The configuration was read again'],
];

function call(text) {
  for (const [pattern, say] of CALLS) {
    const found = text.match(pattern);
    if (found) return say(found[1]);
  }
  return h('code', null, text);
}

export default function audit() {
  let list = null, next = null;
  return {
    title: () => 'Audit log',
    every: 5000,
    async refresh() {
      // What was read on demand stays until the page is left.
      if (list && list.length > LIMIT) return;
      ({ items: list, next } = await read(query('api/v1/audit', { limit: LIMIT })));
    },
    draw(pulse) {
      if (!list) return [heading('Audit log'), loading()];
      return [
        heading('Audit log'),
        h('p', { class: 'quiet' }, 'Every call that changed something, or was to: by this page, by the commands, by programs. With ', h('code', null, 'admin.tokens'), ' each person has a name here.'),
        list.length ? scrolled('Changing calls', h('table', null,
          h('caption', { class: 'unseen' }, 'Changing calls, newest first'),
          h('thead', null, h('tr', null, ['When', 'Who', 'What', 'Outcome'].map(name => h('th', { scope: 'col' }, name)))),
          h('tbody', null, list.map(one => h('tr', null,
            h('td', null, when(one.at, pulse.overview.now)),
            h('td', { 'data-of': 'who' }, one.who),
            h('td', { 'data-of': 'call' }, call(one.call)),
            h('td', null, one.status < 300 ? null : badge('Not done', 'warn', `Status ${one.status}`), one.said)))))) : empty('Nothing was changed yet.'),
        next ? button('Show more', async () => { const part = await read(query('api/v1/audit', { limit: LIMIT, after: next })); list = list.concat(part.items); next = part.next; }) : null,
      ];
    },
  };
}
