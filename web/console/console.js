/** The console: which view is shown, for which app, and whether one may see it. */
import * as channels from './channels.js';
import * as connections from './connections.js';
import { ask, page, sentence, Unauthorized, write } from './dom.js';
import * as events from './events.js';
import * as overview from './overview.js';

const VIEWS = ['overview', 'events', 'channels', 'connections'];
const REFRESH = 2000;

let view = 'overview';
let app = '';
let known = '';          // the apps in the list, as text
let running = false;
let login = 'password';  // what the console asks for: a password, a token, or nothing
let token = takeToken();

start();

/** The token of the link that `taut serve` prints. It goes from the address bar at once: whoever looks at it, or copies it, has no use for it there. */
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get('token') ?? '';
  if (given) history.replaceState(null, '', location.pathname);
  return given;
}

async function start() {
  showState('connecting', 'Connecting…');
  try {
    let session = await ask('session');
    if (token && session.login === 'token' && !session.admitted) session = await exchange(session);
    token = '';
    ({ login } = session);
    page.leave.hidden = login === 'nothing' || !session.admitted;
    if (session.admitted) run();
    else lock();
  } catch (error) {
    showState('lost', sentence(error));
    setTimeout(start, REFRESH);
  }
}

/** Gives the token for a session. One that is of an earlier start of the server opens nothing. */
async function exchange(session) {
  try {
    await ask('session', { method: 'POST', body: { token } });
    return await ask('session');
  } catch (error) {
    if (!(error instanceof Unauthorized)) throw error;
    write(page['login-hint'], sentence(error));
    return session;
  }
}

function run() {
  if (running) return;
  running = true;
  page.login.hidden = true;
  page.nav.hidden = false;
  page.keys.hidden = matchMedia('(pointer: coarse)').matches;
  route();
  events.follow((state, reason) => {
    if (state === 'closed') lock();
    else if (state === 'live') showState('live', 'Live');
    else showState('lost', reason ?? 'Reconnecting…');
  });
  overview.poll((latest, failure) => {
    if (failure instanceof Unauthorized) lock();
    if (latest) offer(latest.apps);
    overview.showReasons(events.refusals(), (reason) => look({ text: reason, groups: ['refused'] }));
    return running;
  });
  refresh();
}

/** Shows the login, and forgets nothing that is on the other views: whoever logs in again goes on. */
function lock() {
  if (running) events.unfollow();
  running = false;
  page.nav.hidden = true;
  page.keys.hidden = true;
  page.leave.hidden = true;
  page['app-choice'].hidden = true;
  for (const name of VIEWS) page[name].hidden = true;
  page.login.hidden = false;
  page['login-by-password'].hidden = login !== 'password';
  page['login-by-token'].hidden = login !== 'token';
  write(page['password-label'], login === 'token' ? 'Token' : 'Password');
  showState('locked', 'Locked');
  page.password.focus();
}

async function refresh() {
  while (running) {
    const shown = { channels, connections }[view];
    try {
      if (shown) await shown.refresh();
      // The form proposes the channels there are.
      else if (view === 'events' && app) await channels.refresh();
    } catch (error) {
      if (error instanceof Unauthorized) return lock();
    }
    await new Promise((resolve) => setTimeout(resolve, REFRESH));
  }
}

page['login-form'].addEventListener('submit', async (event) => {
  event.preventDefault();
  page.enter.disabled = true;
  write(page['login-hint'], '');
  try {
    await ask('session', { method: 'POST', body: { [login]: page.password.value } });
    page.password.value = '';
    await start();
  } catch (error) {
    write(page['login-hint'], sentence(error));
    page.password.select();
  } finally {
    page.enter.disabled = false;
  }
});

page.leave.addEventListener('click', async () => {
  await ask('session', { method: 'DELETE' }).catch(() => {});
  // Whatever this page has seen goes with it.
  location.reload();
});

// The app

function offer(apps) {
  const text = apps.map(({ id }) => id).join('\n');
  if (text === known) return;
  known = text;
  const several = apps.length > 1;
  const option = (value, label) => Object.assign(document.createElement('option'), { value, textContent: label });
  page.app.replaceChildren(...(several ? [option('', 'All apps')] : []), ...apps.map(({ id }) => option(id, id)));
  page['app-choice'].hidden = apps.length === 0;
  page.app.disabled = !several;
  if (!apps.some(({ id }) => id === app)) app = '';
  page.app.value = several ? app : (apps[0]?.id ?? '');
  choose();
}

function choose() {
  app = page.app.value;
  overview.choose(page.app.options.length > 1 ? app : '');
  events.choose(app, page.app.options.length > 1);
  channels.choose(app);
  connections.choose(app);
  ({ channels, connections })[view]?.refresh().catch(() => {});
}

page.app.addEventListener('change', choose);

channels.begin({
  watch: (name) => {
    location.hash = 'events';
    events.only({ channel: name });
  },
  publish: (name) => {
    location.hash = 'events';
    route();
    events.prepare(name);
  },
});

connections.begin({ watch: (socket) => look({ text: socket }) });

page['t-show'].addEventListener('click', () => events.only({ groups: ['refused'] }));

/** Shows the events that have this in common. */
function look(filter) {
  location.hash = 'events';
  events.only(filter);
}

// The view

window.addEventListener('hashchange', () => {
  // A link that is opened where the console is open already.
  const given = takeToken();
  if (given) {
    token = given;
    if (!running) start();
    return;
  }
  const changed = view !== location.hash.slice(1);
  route();
  if (changed && running && document.activeElement === document.body) page.main.focus({ preventScroll: true });
});

function route() {
  if (!running) return;
  const wanted = location.hash.slice(1);
  if (wanted === 'main') return; // the link that skips
  view = VIEWS.includes(wanted) ? wanted : 'overview';
  for (const name of VIEWS) page[name].hidden = name !== view;
  for (const link of page.nav.children) {
    if (link.hash.slice(1) === view) link.ariaCurrent = 'page';
    else link.ariaCurrent = null;
  }
  document.title = `Taut · ${view}`;
  ({ channels, connections })[view]?.refresh().catch(() => {});
}

function showState(state, text) {
  page.link.dataset.state = state;
  write(page.state, text);
}

// Keys, which can be switched off: whoever speaks to the computer may say a letter by chance.

page.shortcuts.checked = localStorage.getItem('taut.shortcuts') !== 'off';
page.shortcuts.addEventListener('change', () => localStorage.setItem('taut.shortcuts', page.shortcuts.checked ? 'on' : 'off'));

document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && event.target.matches('input[type="search"]')) return leaveSearch(event);
  if (!running || page.confirm.open || !page.shortcuts.checked || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest('input:not([type="checkbox"]), textarea, select')) return;
  const number = ['1', '2', '3', '4'].indexOf(event.key);
  if (number >= 0) {
    location.hash = VIEWS[number];
  } else if (event.key === '/') {
    if (view === 'overview') {
      location.hash = 'events';
      route();
    }
    page[{ events: 'event-text', channels: 'channel-filter', connections: 'connection-filter' }[view]].focus();
  } else if (event.key === 'p') {
    events.pause();
  } else if (event.key === 'n') {
    location.hash = 'events';
    route();
    events.prepare();
  } else {
    return;
  }
  event.preventDefault();
});

/** Escape empties a search field: what it filtered is shown again, and the keys work again. */
function leaveSearch(event) {
  event.preventDefault(); // browsers differ in what they do
  event.target.value = '';
  event.target.dispatchEvent(new Event('input', { bubbles: true }));
  event.target.blur();
}
