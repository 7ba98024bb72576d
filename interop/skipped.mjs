// A reporter for node:test that writes down the tests that were skipped, one a line, with the reason.
export default async function* skipped(events) {
  for await (const { type, data } of events) {
    if (type !== 'test:pass' || data.skip === undefined || data.skip === false) continue;
    yield `${data.name}${typeof data.skip === 'string' && data.skip !== '' ? `: ${data.skip}` : ''}\n`;
  }
}
