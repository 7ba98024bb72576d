/** The Markdown files that people read, and what is in them. */
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
export const GUIDE = 'crates/taut/src/guide';
const BUILT = new Set(['node_modules', 'target']);
const FENCE = /^[ \t]*```/;

/** A page, by its path in the repository. `text` is all of it; `prose` has no blocks of code; both keep the numbers of lines. */
export class Page {
  constructor(path) {
    this.path = path;
    this.text = readFileSync(join(REPOSITORY, path), 'utf8');
    let fenced = false;
    this.prose = this.text.split('\n').map((line) => {
      const isFence = FENCE.test(line);
      if (isFence) fenced = !fenced;
      return isFence || fenced ? '' : line;
    }).join('\n');
    this.headings = [...this.prose.matchAll(/^(#+) (.*)$/gm)].map(([, marks, title]) => ({ level: marks.length, title: plain(title) }));
  }

  get title() { return this.headings[0]?.title; }

  /** `{ line, label, target }` of each link and picture. What is in backticks has none. */
  get links() {
    const text = this.prose.replace(/`[^`]*`/g, (code) => code.replace(/[^\n]/g, '`'));
    const found = [
      ...text.matchAll(/\[((?:[^[\]]|\[[^[\]]*\])*)\]\(([^()\s]+(?:\(\))?)\)/g),
      ...text.matchAll(/\b(?:src|srcset|href)(=)"([^"]+)"/g),
      ...text.matchAll(/<(?=https?:)()([^>]+)>/g),
    ];
    return found.map((one) => ({ line: lineOf(text, one.index), target: one[2] }));
  }

  /** `{ line, text }` of what is in backticks within the text. */
  get spans() {
    return [...this.prose.matchAll(/`([^`]+)`/g)].map((one) => ({ line: lineOf(this.prose, one.index), text: one[1].replace(/\s+/g, ' ') }));
  }

  /** `{ line, text }` of each command in the blocks for a shell. */
  get commands() {
    return [...this.text.matchAll(/^[ \t]*```sh\n([\s\S]*?)^[ \t]*```/gm)].flatMap((block) => {
      const first = lineOf(this.text, block.index) + 1;
      return block[1].split('\n').map((text, number) => ({ line: first + number, text: text.replace(/(^|\s)#.*/, '') }));
    });
  }

  /** The anchors that a forge gives to the headings. */
  get anchors() {
    const seen = new Map();
    return new Set(this.headings.map(({ title }) => {
      const name = title.toLowerCase().replace(/[^\p{L}\p{N}_\- ]/gu, '').replace(/ /g, '-');
      const count = seen.get(name) ?? 0;
      seen.set(name, count + 1);
      return count ? `${name}-${count}` : name;
    }));
  }
}

/** All pages, without those of rustdoc. */
export const pages = [...markdown('docs'), ...markdown('examples'), ...markdown('bench'), ...markdown('interop'), ...roots()].map((path) => new Page(path));

/** The pages of the library's guide, whose links are rustdoc's. */
export const guide = markdown(GUIDE).map((path) => new Page(path));

/** Where a relative link leads, as a path in the repository. */
export function resolve(page, target) {
  return normalize(join(dirname(page.path), decodeURI(target.split('#')[0]) || page.path.split('/').pop())).replace(/\/$/, '');
}

/** The pages below a folder, without hidden folders and links: those are of tests that run at the same time. */
function markdown(folder) {
  return readdirSync(join(REPOSITORY, folder), { withFileTypes: true })
    .filter(({ name }) => !name.startsWith('.') && !BUILT.has(name))
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return markdown(path);
      return entry.isFile() && path.endsWith('.md') ? [path] : [];
    })
    .sort();
}

function roots() {
  return readdirSync(REPOSITORY).filter((name) => name.endsWith('.md')).map((name) => relative('.', name));
}

function lineOf(text, index) {
  return text.slice(0, index).split('\n').length;
}

/** A heading as it is shown: without backticks, and of links only the words. */
function plain(title) {
  return title.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').replace(/`/g, '').trim();
}
