/** Modules from servers, as browsers load them. */
const isRemote = (specifier) => /^https?:/.test(specifier);

export async function resolve(specifier, context, next) {
  return isRemote(specifier) ? { url: specifier, format: 'module', shortCircuit: true } : next(specifier, context);
}

export async function load(url, context, next) {
  if (!isRemote(url)) return next(url, context);
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return { format: 'module', source: await response.text(), shortCircuit: true };
}
