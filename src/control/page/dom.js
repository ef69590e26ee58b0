// Elements as functions of data. A page describes what it should look like; `morph` changes what is
// there into that, so that focus, selection and open parts stay while numbers move. All that comes
// from the daemon is put in as text, never as markup.

// Characters that turn the direction of the text around them are left out.
export const plain = text => String(text ?? '').replace(/[\u202a-\u202e\u2066-\u2069]/g, '');
export const $ = id => document.getElementById(id);

const SVG = 'http://www.w3.org/2000/svg';
// The attributes that a page may set. Addresses go through `link`; there are no handlers in markup.
const ALLOWED = /^(class|id|title|for|type|name|value|placeholder|role|tabindex|scope|colspan|hidden|datetime|open|selected|checked|disabled|autocomplete|spellcheck|maxlength|min|max|d|x|y|x1|x2|y1|y2|r|cx|cy|width|height|viewBox|preserveAspectRatio|focusable|pathLength|data-[a-z-]+|aria-[a-z]+)$/;

function build(node, given, children) {
  for (const [name, value] of Object.entries(given ?? {})) {
    if (name === 'on') node.actions = value;
    else if (name === 'key') node.key = value;
    else if (name === 'styles') for (const [property, to] of Object.entries(value)) node.style.setProperty(property, to);
    else if (value === true) attribute(node, name, '');
    else if (value !== false && value != null) attribute(node, name, value);
  }
  for (const child of children.flat(4)) {
    if (child == null || child === false || child === '') continue;
    node.append(child instanceof Node ? child : plain(child));
  }
  return node;
}

function attribute(node, name, value) {
  if (!ALLOWED.test(name)) throw new Error(`no attribute of ours: ${name}`);
  node.setAttribute(name, plain(value));
}

export const h = (name, given, ...children) => build(document.createElement(name), given, children);
export const s = (name, given, ...children) => build(document.createElementNS(SVG, name), given, children);

// The way to the daemon's root from the page that is shown: the shell's own, made absolute.
export const root = new URL('..', import.meta.url);
export const address = path => new URL(path.replace(/^\//, ''), root);

// The shell's own links are relative to the page that it came with; they must outlive a change of the
// address.
export function settle() {
  for (const node of document.querySelectorAll('link[href], a[href]:not([href^="#"])')) node.href = node.href;
  for (const node of document.querySelectorAll('img[src]')) node.src = node.src;
}

// To a page of our own.
export function link(path, given, ...children) {
  const node = build(document.createElement('a'), given, children);
  node.href = address(path).href;
  node.dataset.page = path;
  return node;
}

// To somewhere else, only when it is a web address: it comes from outside.
export function outward(text, ...children) {
  let url;
  try { url = new URL(text); } catch { return null; }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return null;
  const node = build(document.createElement('a'), { class: 'outward' }, children);
  node.href = url.href;
  node.rel = 'noopener noreferrer';
  node.target = '_blank';
  return node;
}

// Makes `old` look like `fresh`, and keeps its nodes where it can.
export function morph(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE && fresh.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return old;
  }
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.key !== fresh.key) {
    old.replaceWith(fresh);
    return fresh;
  }
  for (const { name } of [...old.attributes]) {
    // What a person opened stays open, and what is being done stays so.
    const own = (name === 'open' && old.nodeName === 'DETAILS') || name === 'aria-disabled';
    if (!own && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) === value) continue;
    // The policy forbids styles as attributes; as properties they are fine.
    if (name === 'style') old.style.cssText = fresh.style.cssText;
    else old.setAttribute(name, value);
  }
  old.actions = fresh.actions;
  if (old.nodeName === 'INPUT' || old.nodeName === 'SELECT' || old.nodeName === 'TEXTAREA') {
    if (old.nodeName === 'SELECT') children(old, fresh);
    return old;
  }
  children(old, fresh);
  return old;
}

function children(old, fresh) {
  const keyed = new Map();
  for (const node of old.childNodes) if (node.key != null) keyed.set(node.key, node);
  let place = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const known = wanted.key != null ? keyed.get(wanted.key) : null;
    if (known) {
      if (known !== place) old.insertBefore(known, place);
      place = morph(known, wanted).nextSibling;
    } else if (place && place.key == null && wanted.key == null) {
      place = morph(place, wanted).nextSibling;
    } else {
      old.insertBefore(wanted, place);
    }
  }
  while (place) { const next = place.nextSibling; place.remove(); place = next; }
}

// Shows `nodes` in a box.
export function show(box, ...nodes) {
  const fresh = box.cloneNode(false);
  build(fresh, null, nodes);
  children(box, fresh);
}

// One listener for all: an element says with `on` what it does.
for (const kind of ['click', 'change', 'submit', 'input', 'pointermove', 'pointerleave', 'keydown']) {
  document.addEventListener(kind, event => {
    for (let node = event.target; node && node !== document; node = node.parentNode) {
      if (node.actions?.[kind]) { node.actions[kind](event, node); return; }
    }
  }, kind === 'pointerleave');
}
