/**
 * A backend that lets in and echoes what is signed with one of its secrets, by the libraries of Standard Webhooks and
 * GRIP, and by its own clock. Usage: [PORT=…] node backend.mjs FORM SECRET...
 */
import { createServer } from 'node:http';
import { validateSig } from '@fanoutio/grip';
import { Webhook } from 'standardwebhooks';
import { FORMS } from '../forms.js';

const [form, ...secrets] = process.argv.slice(2);

async function isSigned({ headers }, body) {
  if (form !== 'plain') return (await Promise.all(secrets.map((secret) => validateSig(headers['grip-sig'] ?? '', secret)))).some(Boolean);
  return secrets.some((secret) => {
    try {
      new Webhook(secret).verify(body, headers);
      return true;
    } catch (error) {
      process.stdout.write(`${error.message}\n`);
      return false;
    }
  });
}

const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const body = Buffer.concat(parts);
  if (!await isSigned(request, body)) return response.writeHead(401).end('not signed');
  const answered = FORMS[form].read(body).map((event) => [event, event.event === 'text' ? { send: event.data } : {}]);
  const { headers, body: answer } = FORMS[form].write(answered);
  return response.writeHead(200, headers).end(answer);
}).listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => process.stdout.write(`listening on http://127.0.0.1:${server.address().port}\n`));
