/** Small parts that every view uses. Whatever others wrote gets in through textContent alone, so it can never be markup. */

export const page = Object.fromEntries(Array.from(document.querySelectorAll('[id]'), (element) => [element.id, element]));

export function create(tag, className = '', ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

export function svg(tag, attributes = {}) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Writes only what has changed: a text that is read out or selected stays as it is. */
export function write(element, text) {
  const string = String(text);
  if (element.textContent !== string) element.textContent = string;
}

export class Unauthorized extends Error {}

/** Asks the console's own API, with a body as JSON or none; throws what the server says is wrong. */
export async function ask(path, { method = 'GET', body } = {}) {
  const response = await fetch(`/console/api/${path}`, {
    method,
    headers: body === undefined ? {} : { 'content-type': 'application/json' },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  const complaint = answer?.error ?? `The server answered ${response.status}.`;
  throw response.status === 401 ? new Unauthorized(complaint) : new Error(complaint);
}

export function sentence(error) {
  if (error.name === 'TypeError') return 'The server cannot be reached.';
  if (error.name === 'TimeoutError') return 'The server did not answer in time.';
  return error.message;
}

const whole = new Intl.NumberFormat('en');

export function number(value) {
  return whole.format(value);
}

/** A rate: as exact as it is worth. */
export function rate(value) {
  if (value >= 100_000) return `${whole.format(Math.round(value / 1000))} k`;
  if (value >= 9.95 || Number.isInteger(value)) return whole.format(Math.round(value));
  return value.toFixed(1);
}

export function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

export function bytes(count) {
  if (count < 1024) return plural(count, 'byte');
  return count < 1024 * 1024 ? `${(count / 1024).toFixed(1)} KiB` : `${(count / 1024 / 1024).toFixed(1)} MiB`;
}

export function microseconds(value) {
  if (value < 1000) return `${value} µs`;
  return value < 1e6 ? `${trim(value / 1000)} ms` : `${trim(value / 1e6)} s`;
}

function trim(value) {
  return value < 10 ? value.toFixed(1) : Math.round(value).toString();
}

export function seconds(value) {
  return value < 90 ? `${value} s` : `${Math.round(value / 60)} min`;
}

/** How long something has lasted: the two largest units, each with its number. */
export function lasting(value) {
  const units = [['d', 86_400], ['h', 3600], ['min', 60], ['s', 1]];
  const found = units.findIndex(([, size]) => value >= size);
  const first = found < 0 ? units.length - 1 : found;
  // Days with their hours and hours with their minutes; nobody needs the seconds of minutes.
  const shown = units.slice(first, first < 2 ? first + 2 : first + 1);
  let rest = value;
  const parts = shown.map(([unit, size]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return [count, unit];
  });
  return parts.filter(([count], index) => count || !index).map(([count, unit]) => `${count}\u00a0${unit}`).join(' ');
}

/** Sorts names as people do: 2 before 10. */
export const byName = new Intl.Collator('en', { numeric: true }).compare;

/** A small button that is not the page's main one. */
export function quiet(text, action) {
  const element = create('button', 'quiet', text);
  element.type = 'button';
  element.addEventListener('click', action);
  return element;
}

/** JSON as one reads it, and any other text as it is. */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** What a channel's name says about it. */
export function kindOf(name) {
  const kinds = [];
  if (name.startsWith('presence-')) kinds.push('presence');
  else if (name.startsWith('private-encrypted-')) kinds.push('encrypted');
  else if (name.startsWith('private-')) kinds.push('private');
  if (/^(private-encrypted-|private-|presence-|)cache-/.test(name)) kinds.push('cache');
  return kinds;
}

export function badges(name) {
  return kindOf(name).map((kind) => create('span', `badge ${kind}`, kind));
}

/** What is shown where there is nothing. */
export function empty(heading, text) {
  const line = svg('svg', { viewBox: '0 0 220 60', width: 220, height: 60, 'aria-hidden': 'true' });
  line.append(
    svg('path', { d: 'M10 30h200' }),
    svg('circle', { class: 'end', cx: 10, cy: 30, r: 7 }),
    svg('circle', { class: 'end', cx: 210, cy: 30, r: 7 }),
    svg('circle', { class: 'bead', cx: 110, cy: 30, r: 5 }),
  );
  return create('div', 'empty', line, create('h3', '', heading), create('p', '', text));
}
