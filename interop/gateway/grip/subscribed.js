/**
 * Waits for subscriptions. The answer that subscribes a client reaches Pushpin's handler on another way than the client,
 * so that a publish may be earlier although the client has had the rest of the answer.
 */
import { KEY } from './proxies.js';

const AGAIN = 100;
const ATTEMPTS = 100;
const MARK = /^mark \d+$/;
let marks = 0;

/** Until all of these clients get what is published to the channel. */
export async function subscribed(proxy, channel, ...clients) {
  let published;
  const publish = () => { published = mark(proxy, channel); };
  publish();
  const timer = setInterval(publish, AGAIN);
  try {
    await Promise.all(clients.map((client) => client.hears(MARK)));
  } finally {
    clearInterval(timer);
  }
  await published;
  const last = await mark(proxy, channel);
  await Promise.all(clients.map((client) => client.hears(last)));
  for (const client of clients) forget(client);
}

/** Until this client no longer gets what is published to the channel, but others do. `echo` makes the client hear something. */
export async function unsubscribed(proxy, channel, client, others, echo) {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const last = await mark(proxy, channel);
    await Promise.all(others.map((other) => other.hears(last)));
    await echo();
    const still = client.messages.some((message) => MARK.test(message));
    for (const each of [client, ...others]) forget(each);
    if (!still) return;
  }
  throw new Error(`what is published to ${channel} still arrives`);
}

/** Publishes something of its own; gives the pattern of it. */
async function mark(proxy, channel) {
  marks += 1;
  const content = `mark ${marks}`;
  const response = await fetch(`${proxy.control}/publish/`, { method: 'POST', headers: { authorization: `Bearer ${KEY}` }, body: JSON.stringify({ items: [{ channel, formats: { 'ws-message': { content } } }] }) });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  await response.text();
  return new RegExp(`^${content}$`);
}

function forget(client) {
  client.messages = client.messages.filter((message) => !MARK.test(message));
}
