/** The two forms in which a route tells its backend of events, so that a test can be played with both. */

/**
 * Of each form:
 *   route     the settings of a route
 *   read      the events of a body (a Buffer), in the words of the plain form
 *   write     the answer {headers, body} to a list of [event, answer], of which the answer has `send` (texts and
 *             buffers, one or a list), `close` (a code), and to `open` `subscribe` (names of channels)
 */
export const FORMS = {
  plain: {
    route: {},
    read: (body) => [JSON.parse(body)],
    write: ([[, answer]]) => ({
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(answer, (_, value) => (value?.type === 'Buffer' ? { binary: Buffer.from(value.data).toString('base64') } : value)),
    }),
  },
  'websocket-over-http': {
    // Without this, messages that come quickly go together.
    route: { form: 'websocket-over-http', batch: 1 },
    read: (body) => [...eventsOf(body)],
    write: (answered) => ({
      // A connection that subscribes is one of GRIP from then on.
      headers: { 'content-type': 'application/websocket-events', ...(answered.some(([, { subscribe }]) => subscribe) && { 'sec-websocket-extensions': 'grip; message-prefix=""' }) },
      body: Buffer.concat(answered.flatMap(([{ event }, { send = [], close, subscribe = [] }]) => [
        ...(event === 'open' ? [encoded('OPEN')] : []),
        ...subscribe.map((channel) => encoded('TEXT', `c:${JSON.stringify({ type: 'subscribe', channel })}`)),
        ...[send].flat().map((message) => encoded(typeof message === 'string' ? 'TEXT' : 'BINARY', message)),
        ...(close === undefined ? [] : [encoded('CLOSE', Buffer.from([close >> 8, close & 255]))]),
      ])),
    }),
  },
};

const NAMES = { OPEN: 'open', TEXT: 'text', BINARY: 'binary', CLOSE: 'close', DISCONNECT: 'close' };

function* eventsOf(body) {
  for (let at = 0; at < body.length;) {
    const end = body.indexOf('\r\n', at);
    const [type, length] = body.toString('latin1', at, end).split(' ');
    const size = length === undefined ? 0 : Number.parseInt(length, 16);
    const content = body.subarray(end + 2, end + 2 + size);
    at = end + 2 + (length === undefined ? 0 : size + 2);
    const code = type === 'DISCONNECT' ? 1006 : content.length >= 2 ? content.readUInt16BE() : 1005;
    yield { event: NAMES[type], ...(type === 'TEXT' && { data: content.toString() }), ...(type === 'BINARY' && { data_base64: content.toString('base64') }), ...(NAMES[type] === 'close' && { code }) };
  }
}

function encoded(type, content = '') {
  const bytes = Buffer.from(content);
  return bytes.length ? Buffer.concat([Buffer.from(`${type} ${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]) : Buffer.from(type === 'OPEN' || type === 'CLOSE' ? `${type}\r\n` : `${type} 0\r\n\r\n`);
}
