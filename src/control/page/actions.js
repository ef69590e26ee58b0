// What buttons do to the daemon.

import { $ } from './dom.js';
import { Refused, ask, change, confirmed, during } from './api.js';
import { count, pretty } from './format.js';
import { titled } from './parts.js';

const at = (of, id, verb) => `api/v1/${of}/${encodeURIComponent(id)}${verb ? `/${verb}` : ''}`;

export const pauseDestination = d => change(at('destinations', d.id, 'pause'));
export const resumeDestination = d => change(at('destinations', d.id, 'resume'));
export const tryNow = d => change(at('destinations', d.id, 'retry'));

export const cancel = async d => {
  if (await confirmed(`Cancel the rest of “${titled(d)}”? ${count(d.rows.waiting, 'row')} that wait will never reach mParticle; what is sent in the meantime stays sent.`, 'Cancel the rest')) return change(at('deliveries', d.id, 'cancel'));
};

export const release = async d => {
  if (await confirmed(`Release “${titled(d)}”? Its ${count(d.rows_in, 'row')} are sent now.`, 'Release')) return change(at('deliveries', d.id, 'release'));
};

export const replay = which => change('api/v1/dead-letters/replay', which);
export const discard = async (which, what) => {
  if (await confirmed(`Discard ${what}? The rows will never reach mParticle. Download them first if in doubt.`, 'Discard')) return change('api/v1/dead-letters/discard', which);
};

// A dead letter's batch as text.
export async function batch(id) {
  const text = await (await ask(at('dead-letters', id))).text();
  // `batch` is the last key, and no string can hold an unescaped quote.
  const begin = text.indexOf(',"batch":');
  if (begin < 0) throw new Refused('The batch is not there any more.');
  return pretty(text.slice(begin + 9, -1));
}

// The text goes to the daemon as it was written, so that numbers keep their digits.
export async function edit(letter, done) {
  const box = $('edit'), form = box.querySelector('form'), before = await batch(letter.id);
  $('edit-text').value = before;
  $('edit-chance').hidden = !letter.may_have_arrived;
  $('edit-double').checked = false;
  $('edit-problem').textContent = '';
  $('edit-close').onclick = () => box.close();
  form.onsubmit = event => {
    event.preventDefault();
    const button = event.submitter, text = $('edit-text').value;
    during(button, async () => {
      $('edit-problem').textContent = '';
      try {
        JSON.parse(text);
        let said = await change(at('dead-letters', letter.id), `{"batch":${text},"may_double":${$('edit-double').checked}}`, 'PUT');
        box.close();
        if (said.changed && button.value === 'replay') said = await replay({ ids: [said.id] });
        await done();
        return said;
      } catch (error) {
        if (!(error instanceof Refused || error instanceof SyntaxError)) throw error;
        $('edit-problem').textContent = error instanceof Refused ? error.message : `This is not JSON: ${error.message}`;
      }
    });
  };
  // Nothing that was written goes with one key.
  box.oncancel = event => { if ($('edit-text').value !== before) event.preventDefault(); };
  box.showModal();
}
