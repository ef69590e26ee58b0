// Rows that could not be sent at all, by reason.

import { h, link } from './dom.js';
import { count } from './format.js';
import { read } from './api.js';
import { empty, heading, loading, titled } from './parts.js';

export default function rejected() {
  let got = null;
  return {
    title: () => 'Rejected rows',
    every: 15000,
    async refresh() { got = await read('api/v1/rejected-rows/groups'); },
    draw() {
      if (!got) return [heading('Rejected rows'), loading()];
      return [
        heading('Rejected rows'),
        h('p', { class: 'quiet' }, 'These rows could not be mapped, so they were never sent: they have no identity, or no usable time. Mend the Look or the LookML and send it again; there is nothing to replay.', got.partial ? ' Only the newest were counted.' : ''),
        got.groups.length ? h('div', { id: 'groups' }, got.groups.map(one => h('article', { class: 'card group', key: one.reason },
          h('div', { class: 'bar' }, h('h2', { class: 'problem' }, one.example), h('span', { class: 'quiet' }, count(one.count, 'row'))),
          h('p', { class: 'quiet' }, 'of ', one.deliveries.map(([id, title], at) => [at ? ', ' : '', link(`/deliveries/${id}`, null, titled({ title }))]), one.delivery_count > one.deliveries.length ? ` and ${count(one.delivery_count - one.deliveries.length, 'other')}` : ''),
          one.example_text ? h('details', null, h('summary', null, 'One of them, as Looker sent it'), h('pre', { tabindex: '0' }, one.example_text)) : null)))
          : empty('None: every row of the deliveries on record could be sent.'),
      ];
    },
  };
}
