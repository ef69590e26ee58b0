// What a list of deliveries is narrowed to: in its address, for the API, and as a form.

import { h } from './dom.js';
import { query } from './api.js';

const TIMES = [['', 'Any time'], ['3600', 'Last hour'], ['86400', 'Last 24 hours'], ['604800', 'Last 7 days'], ['2592000', 'Last 30 days']];
const NAMES = ['state', 'schedule', 'destination', 'within', 'search', 'after'];

export class Filters {
  // `states`: name and text of each that can be chosen.
  constructor(path, params, go, states = []) {
    Object.assign(this, { path, go, states });
    this.take(params);
  }
  take(params) { this.wanted = Object.fromEntries(NAMES.map(name => [name, params.get(name) ?? ''])); }
  get narrowed() { return NAMES.some(name => this.wanted[name]); }
  // For the API, without the place in the list.
  get asked() {
    const { within, after, ...of } = this.wanted;
    return { ...of, from: within ? Math.max(0, Date.now() - 1000 * Number(within)) : '' };
  }
  to(changed, replace = true) { this.go(query(this.path, { ...this.wanted, after: '', ...changed }), replace); }
  form(destinations, label) {
    const { wanted } = this;
    const select = (name, text, choices) => h('label', { class: 'select' }, h('span', { class: 'unseen' }, text),
      h('select', { name, on: { change: (_, node) => this.to({ [name]: node.value }) } }, choices.map(([value, said]) => h('option', { value, selected: wanted[name] === value }, said))));
    const places = destinations.map(d => [d.id, d.label]);
    if (wanted.destination && !places.some(([id]) => id === wanted.destination)) places.push([wanted.destination, label ?? wanted.destination]);
    const type = (_, node) => { clearTimeout(this.typing); this.typing = setTimeout(() => this.to({ search: node.value.trim() }), 250); };
    return h('form', { class: 'filters', role: 'search', on: { submit: event => event.preventDefault() } },
      this.states.length ? h('div', { class: 'choice', role: 'group', 'aria-label': 'State' }, this.states.map(([value, text]) => h('button', { type: 'button', 'aria-pressed': String(wanted.state === value), on: { click: () => this.to({ state: value }) } }, text))) : null,
      h('input', { type: 'search', name: 'search', placeholder: 'Title or id', 'aria-label': 'Search by title or id', value: wanted.search, autocomplete: 'off', maxlength: 400, on: { input: type } }),
      select('destination', 'Destination', [['', 'All destinations'], ...places]),
      select('within', 'Received', TIMES),
      wanted.schedule ? h('button', { type: 'button', class: 'chip', on: { click: () => this.to({ schedule: '' }) } }, `Schedule: ${wanted.schedule} ✕`) : null);
  }
  // To the part before and behind.
  pages(next) {
    return next || this.wanted.after ? h('div', { class: 'bar pages' },
      this.wanted.after ? h('button', { type: 'button', on: { click: () => this.to({ after: '' }) } }, 'Newest') : h('span'),
      next ? h('button', { type: 'button', id: 'older', on: { click: () => this.to({ after: next }, false) } }, 'Older') : null) : null;
  }
}
