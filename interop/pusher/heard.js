/** What has come so far, and a way to wait for more: the same in Node.js and in a page, so nothing but the language is used. */

export const PATIENCE = 30_000;

export class Heard {
  #entries = []; #waiting = new Set();

  add(entry) {
    this.#entries.push(entry);
    for (const wake of this.#waiting) wake();
  }

  /** All that has come, in order, or only what has every part of `pattern`. */
  matching(pattern = {}) {
    const parts = Object.entries(pattern);
    return this.#entries.filter((entry) => parts.every(([key, value]) => JSON.stringify(entry[key]) === JSON.stringify(value)));
  }

  /** Waits for `count` entries that have every part of `pattern`, and gives them. */
  until(pattern, count = 1, patience = PATIENCE) {
    return new Promise((resolve, reject) => {
      const wake = () => {
        const found = this.matching(pattern);
        if (found.length < count) return;
        this.#waiting.delete(wake);
        clearTimeout(timer);
        resolve(found);
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(wake);
        reject(new Error(`within ${patience} ms there came no ${count} × ${JSON.stringify(pattern)}, but ${JSON.stringify(this.#entries)}`));
      }, patience);
      this.#waiting.add(wake);
      wake();
    });
  }
}
