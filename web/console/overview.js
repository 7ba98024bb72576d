/** The overview: how much there is, how fast it goes, and what went wrong. */
import { ask, create, lasting, microseconds, number, page, plural, quiet, rate, write } from './dom.js';
import { Plot } from './plot.js';

const EVERY = 1000;
const WINDOW = 60;   // samples that the percentiles look back
const EVERY_NODES = 3000;
const MOST_REASONS = 8;
const QUANTILES = [['q-50', 0.5], ['q-90', 0.9], ['q-99', 0.99], ['q-999', 0.999]];

const messages = new Plot(page['plot-messages'], 'Messages per second', [
  { name: 'delivered', className: 'out' },
  { name: 'received', className: 'in' },
]);
const connections = new Plot(page['plot-connections'], 'Connections', [{ name: 'open', className: 'open' }], { whole: true });
const bars = [];

let before = null;
let past = [];       // histograms, the oldest first
let app = '';
let latest = null;
let cluster = '';    // the state that the nodes were shown in
let nodesAt = 0;

/** Asks once a second, whichever view is shown, so that the plots have no holes; ends when `tell` says so. */
export async function poll(tell) {
  for (;;) {
    const started = performance.now();
    let overview = null;
    let failure = null;
    try {
      overview = await ask('overview');
    } catch (error) {
      failure = error;
      before = null;
    }
    if (overview) {
      show(overview);
      showCluster(overview.cluster ?? '').catch(() => {}); // the next look finds out why
    }
    if (!tell(overview, failure)) return;
    await new Promise((resolve) => setTimeout(resolve, Math.max(100, EVERY - (performance.now() - started))));
  }
}

/** Shows another app, or all of them for ''. */
export function choose(id) {
  app = id;
  before = null;
  messages.clear();
  connections.clear();
  if (latest) show(latest);
}

function show(overview) {
  latest = overview;
  const apps = app ? overview.apps.filter(({ id }) => id === app) : overview.apps;
  const sum = (name) => apps.reduce((total, each) => total + each[name], 0);
  const now = { at: performance.now(), received: sum('received'), delivered: sum('delivered') };
  write(page['f-connections'], number(sum('connections')));
  write(page['f-channels'], number(sum('channels')));
  write(page['f-subscriptions'], number(sum('subscriptions')));
  if (before && now.at > before.at) {
    const perSecond = (name) => Math.max(0, now[name] - before[name]) / ((now.at - before.at) / 1000);
    const values = [perSecond('delivered'), perSecond('received')];
    write(page['f-out'], rate(values[0]));
    write(page['f-in'], rate(values[1]));
    messages.add(values);
    connections.add([sum('connections')]);
  }
  before = now;
  write(page['f-version'], overview.version);
  write(page['f-uptime'], lasting(overview.uptime));
  showTrouble({
    't-refused': sum('refused'),
    't-handshakes': overview.handshakes_refused,
    't-dropped': overview.dropped,
    't-kicked': overview.kicked,
    't-violations': overview.violations,
  });
  showLatency(overview.latency);
  page['apps-card'].hidden = overview.apps.length < 2;
  page.apps.replaceChildren(...overview.apps.map(row));
}

/** Shows the engine that several nodes share, and the nodes; nothing where this one is alone. */
async function showCluster(state) {
  page['cluster-card'].hidden = !state;
  if (!state || (state === cluster && performance.now() - nodesAt < EVERY_NODES)) return;
  [cluster, nodesAt] = [state, performance.now()];
  write(page['cluster-state'], state);
  page['cluster-state'].className = `badge ${state}`;
  page['cluster-hint'].hidden = state !== 'away';
  const { engine, nodes } = await ask('nodes');
  if (!engine) return;
  const speed = engine.state === 'joined' ? [`answers in ${microseconds(Math.round(engine.lag * 1e6))}`] : [];
  const lost = engine.losses ? [`lost ${plural(engine.losses, 'time')}`] : [];
  write(page['cluster-engine'], [engine.address, ...speed, ...lost].join(', '));
  page.nodes.replaceChildren(...nodes.map(({ name, version, connections, here }) => {
    const heading = create('th', '', name, ...(here ? [' ', create('span', 'badge', 'this one')] : []));
    heading.scope = 'row';
    return create('tr', '', heading, create('td', '', version), create('td', 'number', number(connections)));
  }));
}

function showTrouble(counts) {
  for (const [id, count] of Object.entries(counts)) {
    write(page[id], number(count));
    page[id].closest('details').classList.toggle('some', count > 0);
  }
}

/** Shows why requests were refused, the most frequent reasons first; `open` shows the events of one. */
export function showReasons(reasons, open) {
  const shown = [...reasons].sort(([, one], [, other]) => other - one).slice(0, MOST_REASONS);
  page['t-reasons-none'].hidden = shown.length > 0;
  while (page['t-reasons'].childElementCount > shown.length) page['t-reasons'].lastElementChild.remove();
  shown.forEach(([reason, count], index) => {
    let line = page['t-reasons'].children[index];
    if (!line) {
      const link = quiet('', () => open(line.dataset.reason));
      line = create('li', '', link, create('b'));
      page['t-reasons'].append(line);
    }
    line.dataset.reason = reason;
    write(line.firstChild, reason);
    write(line.lastChild, number(count));
  });
}

function row(each) {
  const cells = ['connections', 'channels', 'subscriptions', 'received', 'published', 'delivered', 'refused'];
  const name = create('th', '', each.id, ...(each.enabled ? [] : [' ', create('span', 'badge off', 'off')]));
  name.scope = 'row';
  return create('tr', '', name, ...cells.map((cell) => create('td', 'number', number(each[cell]))));
}

// Buckets are powers of two: the first counts what took less than 2 µs, the next less than 4 µs, and so on.

function showLatency(counts) {
  if (past.length && past.at(-1).some((count, index) => count > counts[index])) past = []; // the server has been restarted
  past.push(counts);
  if (past.length > WINDOW + 1) past.shift();
  const recent = counts.map((count, index) => count - past[0][index]);
  const total = recent.reduce((sum, count) => sum + count, 0);
  const isRecent = total > 0;
  const shown = isRecent ? recent : counts;
  const all = shown.reduce((sum, count) => sum + count, 0);
  write(page['latency-span'], all === 0 ? 'no events yet' : `${plural(all, 'event')}, ${isRecent ? 'last minute' : 'since the server started'}`);
  for (const [id, part] of QUANTILES) write(page[id], all ? `< ${microseconds(quantile(shown, all, part))}` : '–');
  drawBars(shown, all);
}

function quantile(counts, all, part) {
  let seen = 0;
  const index = counts.findIndex((count) => (seen += count) >= all * part);
  return 2 ** ((index < 0 ? counts.length - 1 : index) + 1);
}

function drawBars(counts, all) {
  while (bars.length < counts.length) {
    const bar = create('span', 'bucket', create('i'));
    bar.title = '';
    page.histogram.append(bar);
    bars.push(bar);
  }
  const used = counts.flatMap((count, index) => (count ? [index] : []));
  const middle = used.length ? Math.floor((used[0] + used.at(-1)) / 2) : 5;
  const reach = Math.max(6, used.length ? Math.ceil((used.at(-1) - used[0]) / 2) + 1 : 0);
  const first = Math.max(0, middle - reach + 1);
  const last = Math.min(counts.length - 1, Math.max(middle + reach, first + 11));
  const most = Math.max(1, ...counts);
  bars.forEach((bar, index) => {
    bar.hidden = index < first || index > last;
    bar.firstChild.style.height = counts[index] ? `${Math.max(3, (counts[index] / most) * 100)}%` : '0';
    bar.dataset.bound = microseconds(2 ** (index + 1));
    bar.classList.toggle('labelled', (index - first) % 3 === 2);
    bar.title = `${plural(counts[index], 'event')} in less than ${microseconds(2 ** (index + 1))}`;
  });
  page.histogram.ariaLabel = all
    ? `Half of the events took less than ${microseconds(quantile(counts, all, 0.5))}, 99 of 100 less than ${microseconds(quantile(counts, all, 0.99))}`
    : 'No event has been delivered yet';
}
