/** One random round (rounds.js) for rounds.test.js, in the hub of network namespaces: `node round.js SEED` prints what it gives. */
import { Links } from './namespaces.js';
import { round } from './rounds.js';

console.log(JSON.stringify(await round(Number(process.argv[2]), { network: Links.here() })));
