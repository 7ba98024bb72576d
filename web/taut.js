/**
 * A browser client for the Pusher protocol, version 7, public channels. One module, nothing to build or install.
 *
 *   const taut = new Taut(key, options)       connects at once. Options: host, port, tls, path (default: the page's own),
 *                                             activityTimeout, pongTimeout, connectTimeout (ms: 120 000, 30 000, 10 000)
 *   taut.state                                connecting | connected | waiting | disconnected | refused
 *   taut.socketId                             a string while connected, else null
 *   taut.subscribe(name) → Channel, taut.unsubscribe(name), taut.connect(), taut.disconnect(), taut.ping()
 *   taut.bind(event, callback), taut.unbind(event?, callback?)
 *     'state'  {previous, current, retryIn?, code?, reason?}   retryIn: ms; code and reason: of the close
 *     'error'  {code, message}                the server's pusher:error, or a frame that cannot be read
 *     'frame'  {direction, text}              every message on the wire, 'in' or 'out'
 *     'pong'   {roundTrip}                    ms from a ping to its answer
 *   channel.name, channel.subscribed, channel.bind(event, data => …), channel.unbind(event?, callback?)
 *     also 'pusher:subscription_succeeded' and 'pusher:subscription_error' {type, error, status}
 *
 * Data is decoded where it is JSON, else it is the string as it came. Channels are subscribed again after a reconnect.
 */

class Emitter {
  #callbacks = new Map();

  bind(event, callback) {
    if (!this.#callbacks.has(event)) this.#callbacks.set(event, new Set());
    this.#callbacks.get(event).add(callback);
    return this;
  }

  unbind(event, callback) {
    if (event === undefined) this.#callbacks.clear();
    else if (callback === undefined) this.#callbacks.delete(event);
    else this.#callbacks.get(event)?.delete(callback);
    return this;
  }

  /** Each callback runs in a microtask of its own: none can re-enter the client half-way, or stop the others by throwing. */
  emit(event, detail) {
    queueMicrotask(() => this.#callbacks.get(event)?.forEach((callback) => queueMicrotask(() => callback(detail))));
  }
}

class Channel extends Emitter {
  subscribed = false;

  constructor(name) {
    super();
    this.name = name;
  }
}

export class Taut extends Emitter {
  #url; #connectTimeout; #pongTimeout; #ownSilence;
  #state = 'disconnected'; #channels = new Map(); #listening = null;
  #timer;                                        // one timer is enough: each state waits for one thing
  #failures = 0; #lastDelay = 0; #earliest = 0;  // the backoff
  #socket = null; #socketId = null; #openedAt = null; #refusal = null;                    // this connection
  #silence = 0; #heardAt = 0; #pingedAt = null; #answered = false; #deadline = 0;         // its heartbeat

  constructor(key, options = {}) {
    super();
    const { host, port, tls, path = '', activityTimeout = 120_000, pongTimeout = 30_000, connectTimeout = 10_000 } = options;
    const page = globalThis.location;
    if (typeof key !== 'string' || !key) throw new TypeError('Taut: the app key must be a non-empty string');
    if (!host && !page) throw new TypeError('Taut: outside a web page, options.host must name the server');
    const authority = host || port ? (host ?? page.hostname) + (port ? `:${port}` : '') : page.host;
    const scheme = tls ?? page?.protocol === 'https:' ? 'wss' : 'ws';
    this.#url = `${scheme}://${authority}${path}/app/${encodeURIComponent(key)}?protocol=7&client=taut-js&version=0.1.0`;
    this.#ownSilence = activityTimeout;
    this.#pongTimeout = pongTimeout;
    this.#connectTimeout = connectTimeout;
    this.connect();
  }

  get state() { return this.#state; }
  get socketId() { return this.#socketId; }

  /** Connects now: after `disconnect`, after a refusal, or instead of waiting any longer. */
  connect() {
    if (this.#state === 'connecting' || this.#state === 'connected') return;
    if (this.#state !== 'waiting') this.#failures = 0;
    this.#open();
    this.#listening ??= this.#listen();
  }

  /** Closes until `connect` is called. Channels and bindings are kept. */
  disconnect() {
    this.#leave(1000);
    this.#rest('disconnected');
  }

  subscribe(name) {
    if (typeof name !== 'string' || !name) throw new TypeError('Taut: a channel name must be a non-empty string');
    if (!this.#channels.has(name)) {
      this.#channels.set(name, new Channel(name));
      this.#send('pusher:subscribe', { channel: name });
    }
    return this.#channels.get(name);
  }

  unsubscribe(name) {
    const channel = this.#channels.get(name);
    if (!channel) return;
    channel.subscribed = false;
    this.#channels.delete(name);
    this.#send('pusher:unsubscribe', { channel: name });
  }

  /** Asks for a sign of life; without one within `patience` ms the connection is given up and made anew. */
  ping(patience = this.#pongTimeout) {
    if (this.#state !== 'connected') return;
    const time = now();
    if (this.#pingedAt === null) {
      this.#pingedAt = time;
      this.#answered = false;
      this.#deadline = Infinity;
      this.#send('pusher:ping', {});
    }
    this.#deadline = Math.min(this.#deadline, time + patience); // asking again never grants more time
    // Looked at once an interval too: whatever answers, the next ping is due an interval after that.
    this.#after(Math.min(this.#deadline - time, this.#silence), () => {
      if (!this.#answered && now() < this.#deadline) return this.ping(patience);
      this.#pingedAt = null;
      if (this.#answered) this.#watch();
      // A frozen tab runs its timers before the messages that waited for it: ask once more before giving up.
      else if (now() > this.#deadline + 2000) this.ping(patience);
      else this.#lost(4201, 'No answer to a ping');
    });
  }

  #open() {
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#openedAt = this.#pingedAt = this.#refusal = null;
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    // The deadline is for pusher:connection_established; an open socket alone is of no use yet.
    this.#after(this.#connectTimeout, () => this.#lost(1006, 'No answer from the server'));
    this.#enter('connecting');
  }

  #receive(text) {
    this.#heardAt = now();
    this.#answered = true; // any message is life, not only the pong
    this.emit('frame', { direction: 'in', text });
    const message = decode(text);
    if (typeof message?.event !== 'string') {
      return this.emit('error', { code: null, message: 'The server sent a frame that is not a Pusher message' });
    }
    const { event } = message, data = decode(message.data), channel = this.#channels.get(message.channel);
    if (event === 'pusher:connection_established') this.#established(data);
    else if (event === 'pusher:ping') this.#send('pusher:pong', {});
    else if (event === 'pusher:pong') this.#pong();
    else if (event === 'pusher:error') this.#failed(data);
    else if (event === 'pusher_internal:subscription_succeeded') {
      if (!channel) return;
      channel.subscribed = true;
      channel.emit('pusher:subscription_succeeded', data);
    } else if (!event.startsWith('pusher_internal:')) channel?.emit(event, data);
  }

  #established(data) {
    if (this.#openedAt !== null) return;
    this.#silence = data?.activity_timeout > 0 ? Math.min(data.activity_timeout * 1000, this.#ownSilence) : this.#ownSilence;
    this.#socketId = data?.socket_id ?? null;
    this.#openedAt = now();
    this.#enter('connected');
    for (const channel of this.#channels.keys()) this.#send('pusher:subscribe', { channel });
    this.#watch();
  }

  #pong() {
    if (this.#pingedAt === null) return;
    this.emit('pong', { roundTrip: now() - this.#pingedAt });
    this.#pingedAt = null;
    this.#watch();
  }

  #failed(data) {
    const { code = null, message = '' } = data ?? {};
    // Before the handshake this stands for the close code: some servers then cut the line without one.
    if (this.#openedAt === null && code >= 4000 && code < 4300) this.#refusal = { code, reason: message };
    this.emit('error', { code, message });
  }

  /** Waits for silence. A message does not touch the timer, only the time from which silence is counted. */
  #watch() {
    const left = this.#heardAt + this.#silence - now();
    if (left > 0) this.#after(left, () => this.#watch());
    else this.ping();
  }

  /** The link is gone, or as good as gone; the protocol's classes of close codes say what comes next. */
  #lost(closeCode, closeReason) {
    const { code, reason } = this.#refusal ?? { code: closeCode, reason: closeReason };
    const lasted = this.#openedAt !== null && now() - this.#openedAt >= Math.max(5000, this.#lastDelay);
    this.#leave(4201);
    if (code >= 4000 && code < 4100) return this.#rest('refused', { code, reason });
    // Only a link that lasted clears the count: a server that accepts and then drops must not be hammered.
    if (lasted) this.#failures = 0;
    // 4200 to 4299 ask for a return at once; one second's spread keeps a restart from being a stampede.
    const atOnce = code >= 4200 && code < 4300 && this.#failures === 0;
    const floor = atOnce ? 0 : code >= 4100 && code < 4200 ? 1000 : 100;
    const spread = atOnce ? 1000 : Math.min(30_000, 500 * 2 ** this.#failures);
    const retryIn = floor + Math.random() * spread;
    this.#failures += 1;
    this.#lastDelay = retryIn;
    this.#earliest = now() + floor;
    this.#after(retryIn, () => this.#open());
    this.#enter('waiting', { retryIn, code, reason });
  }

  /** Lets go of the socket without waiting for its close event, which a dead network can hold back for minutes. */
  #leave(code) {
    clearTimeout(this.#timer);
    this.#socketId = null;
    for (const channel of this.#channels.values()) channel.subscribed = false;
    if (!this.#socket) return;
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close(code);
    this.#socket = null;
  }

  #rest(state, detail) {
    this.#listening?.abort();
    this.#listening = null;
    this.#enter(state, detail);
  }

  #enter(current, detail) {
    const previous = this.#state;
    this.#state = current;
    if (previous !== current) this.emit('state', { previous, current, ...detail });
  }

  /** Nothing is kept for later: what a new link has to be told, #established tells it. */
  #send(event, data) {
    if (this.#openedAt === null || this.#socket?.readyState !== WebSocket.OPEN) return;
    const text = JSON.stringify({ event, data });
    this.#socket.send(text);
    this.emit('frame', { direction: 'out', text });
  }

  #after(ms, act) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(act, ms);
  }

  /** The system's own hints come long before a timeout: a network that went or came, a tab that is looked at again. */
  #listen() {
    const listening = new AbortController();
    const check = () => this.ping(Math.min(10_000, this.#pongTimeout));
    const hurry = () => {
      if (this.#state === 'waiting') this.#after(Math.max(0, this.#earliest - now()), () => this.#open());
      else check();
    };
    globalThis.addEventListener?.('online', hurry, listening);
    globalThis.addEventListener?.('offline', check, listening);
    globalThis.document?.addEventListener('visibilitychange', () => document.hidden || hurry(), listening);
    return listening;
  }
}

const now = () => performance.now();

function decode(data) {
  if (typeof data !== 'string') return data;
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}
