// Live events, read from the answer's body: an EventSource could not send the token.

import { Refused, ask } from './api.js';

export const pause = ms => new Promise(done => setTimeout(done, ms));

// Calls `heard(pulse)` for each event and `lost(text)` when there are none.
export async function listen(heard, lost) {
  let wait = 1000;
  for (;;) {
    const quit = new AbortController();
    let watch;
    const alive = () => { clearTimeout(watch); watch = setTimeout(() => quit.abort(), 20000); };
    try {
      const answer = await ask('api/v1/events', { signal: quit.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let buffer = '';
      for (;;) {
        alive();
        const { value, done } = await reader.read();
        if (done) break;
        wait = 1000;
        const events = (buffer + value).split('\n\n');
        buffer = events.pop();
        for (const event of events) {
          const data = event.split('\n').find(line => line.startsWith('data: '));
          if (!data) continue;
          const pulse = JSON.parse(data.slice(6));
          // Without a version there is no overview: the daemon is stuck, and says why.
          if (pulse.overview.version) heard(pulse);
          else lost(pulse.problem ?? 'The daemon is stuck.');
        }
      }
      lost('The daemon has closed the connection; trying again');
    } catch (error) {
      lost(error instanceof Refused ? error.message : 'The daemon does not answer; trying again');
    }
    clearTimeout(watch);
    quit.abort();
    await pause(wait * (0.5 + Math.random()));
    wait = Math.min(15000, wait * 2);
  }
}
