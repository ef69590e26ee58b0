// Figures and times for people.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

export const number = n => whole.format(n);
export const compact = n => (Math.abs(n) < 10000 ? whole.format(n) : short.format(n));
export const pace = n => (n > 0 && n < 100 ? tenth : whole).format(n);
export const count = (n, one, many) => `${number(n)} ${n === 1 ? one : many ?? one + 's'}`;

export function size(bytes) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let at = 0;
  while (bytes >= 1000 && at < units.length - 1) { bytes /= 1000; at += 1; }
  return `${at === 0 || bytes >= 100 ? whole.format(bytes) : tenth.format(bytes)} ${units[at]}`;
}

export function span(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return minutes < 10 && seconds % 60 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

// The time of day, with the day when it is not today.
export function clock(ms, seconds) {
  const at = new Date(ms);
  const time = at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: seconds ? '2-digit' : undefined });
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString([], { day: 'numeric', month: 'short' })}, ${time}`;
}

// With day, seconds and zone, for whoever wants to know exactly.
export const exact = ms => new Date(ms).toLocaleString([], {
  weekday: 'short', year: 'numeric', month: 'short', day: 'numeric',
  hour: '2-digit', minute: '2-digit', second: '2-digit', timeZoneName: 'short',
});

export function ago(ms, now) {
  const seconds = (now - ms) / 1000;
  if (seconds < 0) return `in ${rough(-seconds)}`;
  return seconds < 5 ? 'just now' : `${rough(seconds)} ago`;
}

function rough(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

// `4 min, at 14:32`.
export const finish = (seconds, now) => `${span(seconds)}, at ${clock(now + seconds * 1000)}`;

// An interval of a schedule.
export function every(seconds) {
  for (const [of, name] of [[604800, 'week'], [86400, 'day'], [3600, 'hour'], [60, 'minute']]) {
    const times = seconds / of;
    if (times >= 0.9) return Math.abs(times - 1) < 0.1 ? `every ${name}` : `every ${Math.round(times)} ${name}s`;
  }
  return `every ${span(seconds)}`;
}

// JSON text with breaks and indents and nothing else changed: numbers keep their digits.
export function pretty(text) {
  let out = '', depth = 0;
  const line = () => '\n' + '  '.repeat(depth);
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g)) {
    if (token === '{' || token === '[') { depth += 1; out += token + line(); }
    else if (token === '}' || token === ']') { depth -= 1; out = /[{[]\s*$/.test(out.slice(-200)) ? out.trimEnd() + token : out + line() + token; }
    else if (token === ',') out += token + line();
    else out += token === ':' ? ': ' : token;
  }
  return out;
}
