/** What is wrong with a page to look at: parts that stand out sideways, and what axe-core finds. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Parts that are wider than the window, or have to be scrolled sideways and are not made for it. */
export async function sideways(page) {
  return page.evaluate(() => {
    const name = (element) => `${element.tagName.toLowerCase()}${element.id ? `#${element.id}` : ''}.${[...element.classList].join('.')}`;
    const clips = (element) => element && (getComputedStyle(element).overflowX !== 'visible' || clips(element.parentElement));
    const found = [];
    const { scrollWidth } = document.scrollingElement;
    if (scrollWidth > innerWidth) found.push(`the page is ${scrollWidth} px wide in ${innerWidth} px`);
    for (const element of document.body.querySelectorAll('*')) {
      const { left, right, width } = element.getBoundingClientRect();
      if (!width || element.closest('.unseen, .skip, [aria-hidden="true"], thead')) continue;
      if ((right > innerWidth + 0.5 || left < -0.5) && !clips(element.parentElement)) found.push(`${name(element)} reaches from ${left} to ${right} px`);
      if (element.matches('.quiet:not(.reasons *), .danger, .primary') && element.offsetHeight > 48) found.push(`${name(element)} is squeezed`);
      const { overflowX } = getComputedStyle(element);
      const isMeant = element.matches('.scroll, .chips, input, textarea');
      if (overflowX !== 'visible' && overflowX !== 'clip' && !isMeant && element.scrollWidth > element.clientWidth + 1) {
        const { textOverflow } = getComputedStyle(element);
        if (textOverflow !== 'ellipsis' && overflowX !== 'hidden') found.push(`${name(element)} scrolls sideways`);
      }
    }
    return found;
  });
}

/** What axe-core finds. */
export async function barriers(page) {
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ['violations'] });
    return violations.flatMap(({ id, help, nodes }) => nodes.map(({ target, any }) => `${id}: ${help}: ${target.join(' ')} ${any[0]?.message ?? ''}`));
  });
}

/** Nothing is wider than the window. */
export async function fits(page, what) {
  assert.deepEqual(await sideways(page), [], what);
}

/** axe-core finds nothing. */
export async function isAccessible(page, what) {
  assert.deepEqual(await barriers(page), [], what);
}
