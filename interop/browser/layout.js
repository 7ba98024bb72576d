/** What is wrong with a page to look at: parts that stand out sideways, and what axe-core finds. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Nothing is wider than the window, and nothing has to be scrolled sideways but what is made for it. */
export async function fits(page, what) {
  const found = await page.evaluate(() => {
    const name = (element) => `${element.tagName.toLowerCase()}${element.id ? `#${element.id}` : ''}.${[...element.classList].join('.')}`;
    const clips = (element) => element && (getComputedStyle(element).overflowX !== 'visible' || clips(element.parentElement));
    const found = [];
    const { scrollWidth } = document.scrollingElement;
    if (scrollWidth > innerWidth) found.push(`the page is ${scrollWidth} px wide in ${innerWidth} px`);
    for (const element of document.body.querySelectorAll('*')) {
      const { left, right, width } = element.getBoundingClientRect();
      if (!width || element.closest('.unseen, .skip, [aria-hidden="true"], thead')) continue;
      if ((right > innerWidth + 0.5 || left < -0.5) && !clips(element.parentElement)) found.push(`${name(element)} reaches from ${left} to ${right} px`);
      const { overflowX } = getComputedStyle(element);
      const isMeant = element.matches('.scroll, .chips, input, textarea');
      if (overflowX !== 'visible' && overflowX !== 'clip' && !isMeant && element.scrollWidth > element.clientWidth + 1) {
        const { textOverflow } = getComputedStyle(element);
        if (textOverflow !== 'ellipsis' && overflowX !== 'hidden') found.push(`${name(element)} scrolls sideways`);
      }
    }
    return found;
  });
  assert.deepEqual(found, [], what);
}

/** axe-core finds nothing. */
export async function isAccessible(page, what) {
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ['violations'] });
    return violations.flatMap(({ id, help, nodes }) => nodes.map(({ target, any }) => `${id}: ${help}: ${target.join(' ')} ${any[0]?.message ?? ''}`));
  });
  assert.deepEqual(found, [], what);
}
