// Charts over time: axes with units, the limit as a line, and the values under the pointer.

import { h, s } from './dom.js';
import { clock, exact } from './format.js';
import { query, read } from './api.js';

export const RANGES = [['1h', '1 hour', 3600], ['24h', '24 hours', 86400], ['7d', '7 days', 604800]];
const WIDTH = 600, HEIGHT = 140, POINTS = 300;

// Samples of a range that the daemon keeps; asked for again, only what is new is read.
export class History {
  constructor(range) { this.choose(range); }
  choose(range) {
    this.range = RANGES.some(([name]) => name === range) ? range : '1h';
    this.samples = [];
    this.every = 10;
  }
  async refresh() {
    const range = this.range;
    // The newest sample of a coarse ring is still being made: it is read again.
    const known = this.samples.length > 1 ? this.samples[this.samples.length - 2].at : 0;
    const history = await read(query('api/v1/history', { range, since: known }));
    if (range !== this.range) return;
    this.every = history.every_seconds;
    this.samples = this.samples.filter(sample => sample.at <= known).concat(history.samples);
  }
}

// An even number of tenths, hundreds and so on, at least `most`: its half is whole too.
function nice(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return (most <= power && power > 1 ? 1 : [2, 4, 6, 8, 10].find(step => step * power >= most)) * power;
}

function thin(samples, of, merge) {
  const group = Math.ceil(samples.length / POINTS);
  const points = [];
  for (let at = 0; at < samples.length; at += group) {
    const part = samples.slice(at, at + group);
    points.push({ at: part[part.length - 1].at, value: part.map(of).reduce(merge ?? Math.max) });
  }
  return points;
}

// Times for the axis: four steps.
function ticks(from, to, seconds) {
  return [0, 1, 2, 3, 4].map(step => {
    const ms = from + (to - from) * step / 4;
    const at = new Date(ms);
    return seconds > 86400 ? at.toLocaleDateString([], { weekday: 'short', day: 'numeric' }) : clock(ms).replace(/^.*, /, '');
  });
}

// `series`: [{ name, of, merge, kind }], the first one filled. `unit(v)` writes a value, `mark(v)` one
// at the axis. `limit(sample)`: the allowed most, 0 for none. `state.hover`: a time, or null.
export function chart({ title, about, history, now, series, unit, mark, limit, state, redraw, alarm }) {
  const seconds = RANGES.find(([name]) => name === history.range)[2];
  // A history that is shorter than the range fills the width, from five minutes on.
  const oldest = history.samples[0]?.at ?? now;
  const to = now, from = now - Math.min(seconds * 1000, Math.max(300000, now - oldest));
  const samples = history.samples.filter(sample => sample.at >= from);
  const lines = series.map(one => ({ ...one, points: thin(samples, one.of, one.merge) }));
  const limits = limit ? samples.map(limit) : [];
  const bound = Math.max(0, ...limits);
  const most = Math.max(0, ...lines.flatMap(one => one.points.map(p => p.value)));
  const top = nice(Math.max(1, most, bound));
  const x = at => WIDTH * (at - from) / (to - from);
  const y = value => HEIGHT - HEIGHT * value / top;
  const gap = 3000 * Math.max(history.every, (to - from) / 1000 / POINTS);
  const place = p => `${x(p.at).toFixed(1)} ${y(p.value).toFixed(1)}`;
  // One alone is a dot.
  const path = points => points.map((p, at) => at && p.at - points[at - 1].at < gap ? `L${place(p)}` : `M${place(p)}h0`).join('');
  const area = points => {
    let out = '', begin = 0;
    for (let at = 1; at <= points.length; at += 1) {
      if (at < points.length && points[at].at - points[at - 1].at < gap) continue;
      const part = points.slice(begin, at);
      out += `${path(part)}L${x(part[part.length - 1].at).toFixed(1)} ${HEIGHT}L${x(part[0].at).toFixed(1)} ${HEIGHT}Z`;
      begin = at;
    }
    return out;
  };
  // A limit holds until it changes; where nothing was to be sent there is none.
  const stairs = points => points.map((p, at) => at && p.at - points[at - 1].at < gap ? `H${x(p.at).toFixed(1)}V${y(p.value).toFixed(1)}` : `M${x(p.at).toFixed(1)} ${y(p.value).toFixed(1)}`).join('');
  const latest = samples[samples.length - 1];
  const hovered = state.hover == null || !samples.length ? null : samples.reduce((best, sample) => Math.abs(sample.at - state.hover) < Math.abs(best.at - state.hover) ? sample : best);
  const shown = hovered ?? latest;
  const move = at => { state.hover = at; redraw(); };
  const alarming = alarm && most > 0;
  return h('figure', { class: `card chart${alarming ? ' alarm' : ''}` },
    h('figcaption', { class: 'bar' }, h('h3', null, title), h('span', { class: 'value' }, shown ? unit(lines[0].of(shown)) : '–')),
    h('p', { class: 'quiet about' }, hovered
      ? `${exact(hovered.at)}${lines.slice(1).map(one => ` · ${one.name} ${unit(one.of(hovered))}`).join('')}${limit && limit(hovered) ? ` · limit ${unit(limit(hovered))}` : ''}`
      : about),
    h('div', { class: 'plot' },
      h('div', { class: 'scale', 'aria-hidden': 'true' }, [1, 0.5, 0].map(share => h('span', null, mark(top * share)))),
      h('div', { class: 'field', tabindex: '0', role: 'img',
        'aria-label': samples.length ? `${title}: now ${unit(lines[0].of(latest))}, at most ${unit(most)} since ${clock(samples[0].at)}${bound ? `, limit ${unit(bound)}` : ''}` : `${title}: nothing yet`,
        on: {
          pointermove: (event, node) => { const box = node.getBoundingClientRect(); move(from + (to - from) * (event.clientX - box.left) / box.width); },
          pointerleave: () => move(null),
          keydown: event => {
            const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
            if (event.key === 'Escape') move(null);
            if (!step || !samples.length) return;
            event.preventDefault();
            const here = samples.indexOf(shown);
            move(samples[Math.min(samples.length - 1, Math.max(0, here + step))].at);
          },
        } },
      s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true', focusable: 'false' },
        [0, 0.5, 1].map(share => s('path', { class: 'grid', d: `M0 ${HEIGHT * share}H${WIDTH}` })),
        lines[0].points.length ? s('path', { class: 'area', d: area(lines[0].points) }) : null,
        bound ? s('path', { class: 'limit', d: stairs(samples.filter(limit).map(sample => ({ at: sample.at, value: limit(sample) }))) }) : null,
        lines.map((one, at) => s('path', { class: `line${at ? ' second' : ''}`, d: path(one.points) })),
        hovered ? s('path', { class: 'cursor', d: `M${x(hovered.at).toFixed(1)} 0V${HEIGHT}` }) : null),
      latest && bound && limit(latest) ? h('span', { class: 'limit-name', styles: { top: `${(100 * y(limit(latest)) / HEIGHT).toFixed(1)}%` } }, `limit ${mark(limit(latest))}`) : null,
      samples.length ? null : h('span', { class: 'none' }, 'Nothing yet'))),
    h('div', { class: 'axis', 'aria-hidden': 'true' }, ticks(from, to, (to - from) / 1000).map(text => h('span', null, text))));
}

// The choice of a range, for all charts of a page.
export const ranges = (history, choose) => h('div', { class: 'choice', role: 'group', 'aria-label': 'Time range' },
  RANGES.map(([name, text]) => h('button', { type: 'button', 'aria-pressed': String(history.range === name), on: { click: () => choose(name) } }, text)));
