// Talking to the daemon, and the dialogs that go with it.

import { $, address, plain } from './dom.js';

export class Refused extends Error {}
const KEEP = 'looker-feed-token';
let token = sessionStorage.getItem(KEEP);
let entering = null;

export async function ask(path, options = {}) {
  for (;;) {
    const headers = { ...options.headers }, used = token;
    if (token) headers.Authorization = `Bearer ${token}`;
    const answer = await fetch(address(path), { ...options, headers });
    if (answer.status === 401) {
      // Another call may have asked for it in the meantime.
      if (token === used) await enter(token ? 'That token was not accepted.' : '');
      continue;
    }
    if (!answer.ok) {
      const said = await answer.json().catch(() => ({}));
      throw new Refused(said.error ?? `The daemon answered with status ${answer.status}.`);
    }
    return answer;
  }
}

export const read = async path => (await ask(path)).json();

export async function change(path, body, method = 'POST') {
  const answer = await ask(path, {
    method,
    headers: { 'X-Looker-Feed': '1', 'Content-Type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body ?? {}),
  });
  return answer.json();
}

// `path?name=value`, without what is empty.
export function query(path, values) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value != null && value !== '') params.set(name, value);
  return params.size ? `${path}?${params}` : path;
}

function enter(problem) {
  entering ??= new Promise(done => {
    const box = $('enter'), form = box.querySelector('form');
    $('enter-problem').textContent = problem;
    form.onsubmit = event => {
      event.preventDefault();
      token = $('token').value.trim();
      $('token').value = '';
      // A header cannot hold other characters; the daemon has no such token either.
      if (!/^[\x21-\x7e]+$/.test(token)) { token = null; $('enter-problem').textContent = 'A token has only letters, digits and signs.'; return; }
      sessionStorage.setItem(KEEP, token);
      entering = null;
      box.close();
      done();
    };
    box.oncancel = event => event.preventDefault();
    box.showModal();
  });
  return entering;
}

let silence;
export function say(text) {
  const said = $('said');
  said.textContent = plain(text);
  said.hidden = false;
  clearTimeout(silence);
  silence = setTimeout(() => { said.hidden = true; }, 7000);
}

export function confirmed(text, verb) {
  const box = $('ask');
  $('ask-text').textContent = plain(text);
  box.querySelector('[data-answer=yes]').textContent = verb;
  return new Promise(done => {
    box.onclick = event => { const answer = event.target.dataset.answer; if (answer) box.close(answer); };
    box.onclose = () => done(box.returnValue === 'yes');
    box.returnValue = '';
    box.showModal();
  });
}

export const sentence = error => error instanceof Refused ? error.message : 'The daemon did not answer.';

// A button cannot be pressed again before its call is answered; what goes wrong is said. It is not
// `disabled`, which would take the focus away.
export async function during(button, work) {
  if (button.getAttribute('aria-disabled') === 'true') return;
  button.setAttribute('aria-disabled', 'true');
  try {
    const done = await work();
    if (done?.message) say(done.message);
  } catch (error) {
    say(sentence(error));
  } finally {
    button.removeAttribute('aria-disabled');
  }
}

export async function download(path, name) {
  const url = URL.createObjectURL(await (await ask(path)).blob());
  const node = document.createElement('a');
  node.href = url;
  node.download = name;
  node.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}
