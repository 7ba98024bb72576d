/** Node.js as a page would be, for blocks that are meant for one: pusher-js is there, and modules come from servers. */
import { register } from 'node:module';
import Pusher from 'pusher-js';

globalThis.Pusher = Pusher;
register('./remote.js', import.meta.url);
