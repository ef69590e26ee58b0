// Is everything fine, what is stuck and since when, when will it be done, and what must I do.

import { h, link } from './dom.js';
import { ago, clock, compact, count, exact, finish, number, pace, size, span } from './format.js';
import { button, empty, isOpen, isStuck, table, titled } from './parts.js';
import { History, chart, ranges } from './chart.js';
import { resumeDestination, tryNow } from './actions.js';

// Open deliveries that are shown.
const OPEN = 6;

const sum = (list, of) => list.reduce((all, one) => all + of(one), 0);

// Several destinations with the same trouble are one card.
function grouped(issues, now) {
  const of = kind => issues.filter(one => one.destination && one.kind === kind);
  const all = { destination_down: ['do not answer', 'Nothing is lost, and there is nothing to do: each is tried again by itself.'], destination_paused: ['are paused: nothing is sent to them', 'Nothing is lost. Correct the credentials in Looker’s action, or cancel the delivery that is wrong, then resume each.'] };
  return issues.flatMap(one => {
    const alike = of(one.kind);
    if (!all[one.kind] || alike.length < 2) return [one];
    if (one !== alike[0]) return [];
    const [what, then] = all[one.kind];
    const labels = alike.map(each => now.destinations.find(d => d.id === each.destination)?.label ?? each.destination);
    const some = labels.slice(0, 3).join('; ') + (labels.length > 3 ? `; and ${number(labels.length - 3)} more` : '');
    const since = alike.map(each => each.since).filter(Boolean);
    return [{ ...one, several: true, title: `${number(alike.length)} destinations ${what}.`, text: `${some}. ${then}`, since: since.length ? Math.min(...since) : null }];
  });
}

export function issue(one, now) {
  const destination = now.destinations.find(d => d.id === one.destination);
  const acts = {
    several: () => link('/destinations', { class: one.level === 'attention' ? 'button primary' : 'button' }, 'Look at them'),
    destination_paused: () => button('Resume', () => resumeDestination(destination), { class: 'primary', 'data-do': 'resume' }),
    destination_down: () => button('Try now', () => tryNow(destination), { 'data-do': 'retry' }),
    dead_letters: () => link('/dead-letters', { class: 'button primary' }, 'Look at them'),
    deliveries_held: () => link('/deliveries?state=held', { class: 'button primary' }, 'Look at them'),
    deliveries_failed: () => link('/failed-deliveries', { class: 'button primary' }, 'Look at them'),
    looker_api: () => link('/failed-deliveries', { class: 'button' }, 'Look at them'),
    outbox_nearly_full: () => link('/destinations', { class: 'button' }, 'See why'),
  }[one.several ? 'several' : one.kind];
  const next = !one.several && destination?.next_try > now.now ? ` Next try in ${span((destination.next_try - now.now) / 1000)}, at ${clock(destination.next_try, true)}.` : '';
  return h('article', { class: `issue ${one.level}`, key: `${one.kind}-${one.level}-${one.destination ?? one.text}` },
    h('div', null, h('h2', null, one.title),
      h('p', null, one.text + next),
      one.since ? h('p', { class: 'quiet' }, 'Since ', h('time', { title: exact(one.since), datetime: new Date(one.since).toISOString() }, clock(one.since)), `, for ${span((now.now - one.since) / 1000)}`) : null),
    acts && (destination || !one.destination) ? h('div', { class: 'buttons' }, acts()) : null);
}

// The one sentence below the headline.
function subline(pulse) {
  const now = pulse.overview, working = now.destinations.filter(d => d.batches > 0);
  const said = [];
  if (now.receiving.length) said.push(`${count(now.receiving.length, 'delivery is', 'deliveries are')} coming in.`);
  if (working.length) {
    const times = working.map(d => d.seconds_left);
    const stuck = working.filter(isStuck);
    const held = now.outbox.held_deliveries;
    const going = sum(working.filter(d => !isStuck(d)), d => d.deliveries) - (stuck.length ? 0 : held);
    if (stuck.length < working.length && going > 0 && times.some(t => t != null)) {
      const last = Math.max(...times.filter(t => t != null));
      said.push(`${count(going, 'delivery is', 'deliveries are')} being sent, done in ${finish(last, now.now)}.`);
    } else if (stuck.length < working.length && going > 0) said.push(`${count(going, 'delivery is', 'deliveries are')} being sent.`);
    if (stuck.length) {
      const since = stuck.map(d => d.since).filter(Boolean);
      said.push(`${count(sum(stuck, d => d.deliveries), 'delivery waits', 'deliveries wait')} for ${stuck.length === 1 ? stuck[0].label : `${number(stuck.length)} destinations`}${since.length ? ` since ${clock(Math.min(...since))}` : ''}.`);
    }
  } else if (!now.receiving.length && pulse.deliveries.length) {
    said.push(`Nothing waits. The last delivery came ${ago(pulse.deliveries[0].received, now.now)}.`);
  }
  if (!now.health.issues.length && pulse.deliveries.length) said.push('Nothing needs you.');
  return said.join(' ');
}

function tile(name, big, unit, more, kind) {
  return h('div', { class: `tile ${kind ?? ''}`, key: name, id: `tile-${name.toLowerCase().replaceAll(' ', '-')}` },
    h('h2', null, name), h('p', { class: 'big' }, big, unit ? h('span', { class: 'unit' }, ` ${unit}`) : null), h('p', { class: 'quiet' }, more));
}

function tiles(now) {
  const working = now.destinations.filter(d => d.batches > 0 || d.in_flight > 0);
  const rows = sum(now.destinations, d => d.rows), batches = sum(now.destinations, d => d.batches);
  const oldest = working.map(d => d.oldest).filter(Boolean);
  const waits = working.filter(isStuck), moving = working.filter(d => !isStuck(d));
  const rate = sum(moving, d => d.accepted_rate);
  // What is allowed is allowed to those that have something to send.
  const limit = moving.every(d => d.limit > 0) ? sum(moving, d => d.limit) : 0;
  const held = now.outbox.held_deliveries, only_held = held > 0 && !waits.length && held >= sum(moving, d => d.deliveries);
  const times = only_held ? [] : moving.map(d => d.seconds_left).filter(t => t != null);
  const needing = now.health.issues.filter(one => one.level === 'attention' || one.level === 'failing');
  const late = now.outbox.rejected_rows;
  return h('section', { class: 'tiles', 'aria-label': 'At a glance' },
    tile('Waiting', rows ? compact(rows) : 'Nothing', rows ? (rows === 1 ? 'row' : 'rows') : '', batches ? `${count(batches, 'batch', 'batches')}, the oldest for ${oldest.length ? span((now.now - Math.min(...oldest)) / 1000) : '0 s'}` : 'All that came in has been sent'),
    tile('Sending', moving.length ? pace(rate) : 'Nothing', moving.length ? 'batches/s' : '', moving.length ? (limit ? `of ${pace(limit)} allowed` : 'accepted by mParticle') : waits.length ? `${count(waits.length, 'destination waits', 'destinations wait')}` : `${count(now.totals.deliveries_accepted, 'delivery', 'deliveries')} since the start`),
    tile('Time to finish', times.length ? span(Math.max(...times)) : waits.length || only_held ? 'Waits' : batches ? 'Soon known' : 'Done', '', times.length ? `at ${clock(now.now + Math.max(...times) * 1000)}${waits.length ? `, but for ${count(waits.length, 'destination that waits', 'destinations that wait')}` : ''}` : waits.length ? `for ${waits.length === 1 ? waits[0].label : `${number(waits.length)} destinations`}${waits[0].since ? ` since ${clock(waits[0].since)}` : ''}` : only_held ? 'to be released' : batches ? 'in some seconds' : 'nothing is left to send'),
    tile('Needs you', needing.length ? number(needing.length) : 'Nothing', needing.length ? (needing.length === 1 ? 'thing' : 'things') : '', [now.outbox.dead_letters ? count(now.outbox.dead_letters, 'dead letter') : null, late ? count(late, 'rejected row') : null].filter(Boolean).join(', ') || 'No dead letters, no rejected rows', needing.length ? 'bad' : ''));
}

function first() {
  const step = (title, ...text) => h('li', null, h('h3', null, title), h('p', null, text));
  return h('section', { class: 'card first', 'aria-labelledby': 'h-first' },
    h('h2', { id: 'h-first' }, 'No delivery has come yet. What to do first'),
    h('ol', null,
      step('Make a key for Looker', 'Run ', h('code', null, 'looker-feed token'), ' with the same secret as this daemon: it prints one line.'),
      step('Add this daemon to Looker', 'Admin → Platform → Actions → Add Action Hub: enter the address that Looker reaches this daemon at (', h('code', null, 'intake.base_url'), '), then Configure Authorization and paste the key.'),
      step('Enable the action “mParticle”', 'with the input credentials of the Server to Server feed.'),
      step('Schedule a Look', 'with columns that carry ', h('code', null, 'mp_'), ' tags and the destination mParticle. It appears here while it comes in.')),
    h('p', { class: 'quiet' }, 'No Looker at hand? ', h('code', null, 'looker-feed send FILE --api-key K'), ' plays its part, and ', h('code', null, 'looker-feed sandbox'), ' that of mParticle.'));
}

function receiving(now) {
  if (!now.receiving.length) return null;
  return h('section', { 'aria-labelledby': 'h-receiving', key: 'receiving' }, h('h2', { id: 'h-receiving' }, 'Coming in'),
    h('ul', { class: 'plain' }, now.receiving.map(r => h('li', { class: 'card line' }, h('strong', null, titled(r)), h('span', null, `${count(r.rows, 'row')}, ${size(r.bytes)}`), h('span', { class: 'quiet' }, `for ${span((now.now - r.since) / 1000)}`)))));
}

export default function overview({ redraw, refresh }) {
  const history = new History(localStorage.getItem('looker-feed-range'));
  const state = { hover: null };
  const choose = range => { history.choose(range); localStorage.setItem('looker-feed-range', range); redraw(); refresh(); };
  return {
    title: () => 'Overview',
    every: 10000,
    refresh: () => history.refresh(),
    draw(pulse) {
      const now = pulse.overview, { health } = now;
      const nothing = !pulse.deliveries.length && !now.receiving.length;
      // What is stuck stands on top, then the oldest.
      const { open } = pulse;
      const recent = pulse.deliveries.filter(d => !isOpen(d)).slice(0, 8);
      const common = { history, now: now.now, state, redraw };
      return [
        h('div', { class: `hero ${health.level}` }, h('span', { class: 'dot', 'aria-hidden': 'true' }), h('div', null, h('h1', { tabindex: '-1' }, health.headline), h('p', { class: 'quiet', id: 'subline' }, subline(pulse)))),
        h('section', { 'aria-label': 'Issues', class: 'issues', id: 'issues' }, grouped(health.issues, now).map(one => issue(one, now))),
        nothing ? first() : tiles(now),
        receiving(now),
        open.length ? h('section', { 'aria-labelledby': 'h-open', key: 'open' }, h('div', { class: 'bar' }, h('h2', { id: 'h-open' }, 'Open'), open.length > OPEN ? link('/deliveries?state=open', null, `All ${number(sum(now.destinations, d => d.deliveries))} that are open`) : null), table(open.slice(0, OPEN), now.now, 'Deliveries that are not over')) : null,
        nothing ? null : h('section', { 'aria-labelledby': 'h-recent', key: 'recent' }, h('div', { class: 'bar' }, h('h2', { id: 'h-recent' }, 'Latest'), link('/deliveries', null, 'All deliveries')), recent.length ? table(recent, now.now, 'The latest deliveries that are over') : empty('Those that are over stand here.')),
        nothing ? null : h('section', { 'aria-labelledby': 'h-charts', key: 'charts' }, h('div', { class: 'bar' }, h('h2', { id: 'h-charts' }, 'Over time'), ranges(history, choose)),
          h('div', { class: 'cards', id: 'charts' },
            chart({ ...common, title: 'Accepted by mParticle', about: 'Batches a second', series: [{ name: 'accepted', of: one => one.accepted_rate }], unit: v => `${pace(v)} batches/s`, mark: compact, limit: one => one.limit }),
            chart({ ...common, title: 'Backlog', about: 'Batches that wait', series: [{ name: 'waiting', of: one => one.backlog_batches }], unit: v => count(v, 'batch', 'batches'), mark: compact }),
            chart({ ...common, title: 'Told to slow down', about: 'Replies with status 429', series: [{ name: 'replies', of: one => one.throttled, merge: (a, b) => a + b }], unit: v => count(v, 'reply', 'replies'), mark: compact, alarm: true }),
            chart({ ...common, title: 'Reply time', about: 'Mean, in milliseconds; dashed: 99 of 100 are faster', series: [{ name: 'mean', of: one => one.latency_mean_ms }, { name: '99 of 100 below', of: one => one.latency_p99_ms }], unit: v => `${pace(v)} ms`, mark: compact }))),
      ];
    },
  };
}
