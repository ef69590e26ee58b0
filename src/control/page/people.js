// Where is this person? And erasing them. Whom it is about is in no address and no list.

import { h, link } from './dom.js';
import { change, confirmed, read, say } from './api.js';
import { count, number, size } from './format.js';
import { badge, button, empty, heading, loading, scrolled, titled, when } from './parts.js';

const NAMES = ['email', 'customer_id', 'mpid', 'facebook', 'google', 'microsoft', 'twitter', 'yahoo', 'other', 'other_id_2', 'other_id_3', 'other_id_4', 'mobile_number', 'phone_number_2', 'phone_number_3', 'alias'];
const STATES = { running: ['Reading', ''], waiting: ['Waits', 'warn'], done: ['Done', 'good'], failed: ['Failed', 'bad'], stopped: ['Stopped', 'warn'] };
const NOTED = { sent: 'sent as changed', unchanged: 'unchanged, not sent', left: 'told to have left the audience' };

const field = (id, label, given) => h('label', { for: id, class: 'entry' }, h('span', null, label), h('input', { id, autocomplete: 'off', spellcheck: 'false', maxlength: 1024, ...given }));

function asked() {
  const value = document.getElementById('person-value').value.trim();
  const name = document.getElementById('person-name').value;
  if (!value) { say('Enter whom to look for.'); document.getElementById('person-value').focus(); return null; }
  return { identities: { [name]: value } };
}

function places(list, now) {
  return scrolled('Where the person is', h('table', null,
    h('caption', { class: 'unseen' }, 'Where the person is, newest delivery first'),
    h('thead', null, h('tr', null, ['Delivery', 'Received', 'Rows waiting', 'Decided', 'Dead', 'Rejected', 'Noted'].map((name, at) => h('th', { scope: 'col', class: at > 1 && at < 6 ? 'figure' : null }, name)))),
    h('tbody', null, list.map(one => h('tr', { key: one.delivery },
      h('td', null, one.received ? link(`/deliveries/${one.delivery}`, null, titled(one)) : h('span', null, 'A delivery that is not listed any more')),
      h('td', null, one.received ? when(one.received, now) : '–'),
      h('td', { class: 'figure' }, number(one.waiting + one.in_flight)), h('td', { class: 'figure' }, number(one.decided)),
      h('td', { class: 'figure' }, number(one.dead)), h('td', { class: 'figure' }, number(one.rejected)),
      h('td', null, NOTED[one.noted] ?? '–'))))));
}

export default function people({ refresh }) {
  let list = null;
  const begin = erases => async () => {
    const body = asked();
    if (!body) return;
    if (erases) {
      if (!await confirmed('Erase this person? What waits of them is not sent, dead letters, rejected rows and what is noted for “send only changes” go. It cannot be undone. What mParticle already has stays there.', 'Erase')) return;
      body.reference = document.getElementById('person-reference').value.trim() || null;
    }
    await change(`api/v1/people/${erases ? 'erase' : 'find'}`, body);
    await refresh();
  };
  return {
    title: () => 'Find a person',
    every: 1000,
    async refresh() { list = await read('api/v1/people/lookups'); },
    draw(pulse) {
      const now = pulse.overview.now;
      return [
        heading('Find a person'),
        h('p', { class: 'quiet' }, 'Searches what is here: requests that wait, dead letters, rejected rows, and what is noted for “send only changes”. Batches that were sent are not kept.'),
        h('form', { class: 'card person', on: { submit: event => event.preventDefault() } },
          h('label', { for: 'person-name', class: 'entry' }, h('span', null, 'Identity'), h('select', { id: 'person-name' }, NAMES.map(name => h('option', { value: name }, name)))),
          field('person-value', 'Value'),
          field('person-reference', 'Reference, to erase', { maxlength: 100, placeholder: 'for the audit log; no name' }),
          h('div', { class: 'buttons' }, button('Find', begin(false), { class: 'primary', 'data-do': 'find' }), button('Erase', begin(true), { class: 'danger', 'data-do': 'erase' }))),
        !list ? loading() : !list.length ? empty('Nobody has been looked for since the start.') : list.map(one => h('section', { class: 'card', key: one.id, 'data-lookup': one.id },
          h('div', { class: 'bar' }, h('h2', null, one.erases ? 'Erasure' : 'Search', one.reference ? `: ${one.reference}` : ''), badge(...STATES[one.state] ?? [one.state, ''])),
          h('p', { 'data-of': 'message' }, one.message),
          h('p', { class: 'quiet' }, 'Begun ', when(one.started, Math.max(now, one.started)), ` · ${size(one.read_bytes)} of ${size(one.total_bytes)} read`, one.places.length ? ` · ${count(one.places.length, 'delivery', 'deliveries')}` : ''),
          one.places.length ? places(one.places, now) : null)),
      ];
    },
  };
}
