/** What chat.js uses of `Taut`, made of the real pusher-js. The test puts that library's own file in front of this one. */
const STATES = {
  initialized: 'disconnected',
  connecting: 'connecting',
  connected: 'connected',
  unavailable: 'waiting',
  failed: 'refused',
  disconnected: 'disconnected',
};

export class Taut {
  #pusher; #callbacks = {}; #state = 'disconnected'; #refusal; #pingedAt = null;

  constructor(key) {
    this.#pusher = new globalThis.Pusher(key, {
      cluster: '',
      wsHost: location.hostname,
      wsPort: Number(location.port),
      forceTLS: false,
      enabledTransports: ['ws'],
    });
    const { connection } = this.#pusher;
    connection.bind('error', ({ error }) => { this.#refusal = error?.data; });
    connection.bind('connecting_in', (seconds) => this.#enter('waiting', { retryIn: seconds * 1000 }));
    connection.bind('state_change', ({ current }) => {
      const { code, message } = this.#refusal ?? {};
      if (current === 'disconnected' && code >= 4000 && code < 4100) this.#enter('refused', { code, reason: message });
      else this.#enter(STATES[current], current === 'unavailable' ? { retryIn: 1000 } : {});
    });
    connection.bind('message', (message) => {
      this.#emit('frame', { direction: 'in', text: JSON.stringify(message) });
      if (message.event !== 'pusher:pong' || this.#pingedAt === null) return;
      this.#emit('pong', { roundTrip: performance.now() - this.#pingedAt });
      this.#pingedAt = null;
    });
    const send = connection.send_event.bind(connection);
    connection.send_event = (event, data, channel) => {
      this.#emit('frame', { direction: 'out', text: JSON.stringify({ event, data, channel }) });
      return send(event, data, channel);
    };
  }

  get state() { return this.#state; }
  get socketId() { return this.#pusher.connection.socket_id ?? null; }
  connect() { this.#pusher.connect(); }
  subscribe(name) { return this.#pusher.subscribe(name); }

  bind(event, callback) {
    (this.#callbacks[event] ??= []).push(callback);
    return this;
  }

  ping() {
    if (this.#state !== 'connected') return;
    this.#pingedAt = performance.now();
    this.#pusher.connection.send_event('pusher:ping', {});
  }

  #enter(current, detail) {
    const previous = this.#state;
    this.#state = current;
    if (previous !== current) this.#emit('state', { previous, current, ...detail });
  }

  #emit(event, detail) {
    for (const callback of this.#callbacks[event] ?? []) callback(detail);
  }
}
