/** The blocks of code in the pages that people copy from, and ways to run each as it stands. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { within } from '../browser/server.js';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
const TAUT = process.env.TAUT_BIN ?? join(REPOSITORY, 'target/release/taut');
const PATIENCE = 20_000;

/** The pages, README.md first. */
export const PAGES = ['README.md', ...readdirSync(join(REPOSITORY, 'docs')).filter((name) => name.endsWith('.md')).sort().map((name) => `docs/${name}`)];

/** The fenced blocks of a page: `{ page, line, language, text }`. */
export function blocksOf(page) {
  const blocks = [];
  let block;
  let before = '';
  readFileSync(join(REPOSITORY, page), 'utf8').split('\n').forEach((text, number) => {
    const fence = /^\s*```\s*([\w-]*)/.exec(text);
    if (block) {
      if (fence) block = undefined;
      else block.text += `${text}\n`;
    } else if (fence) {
      blocks.push(block = { page, line: number + 1, language: fence[1] || 'text', text: '' });
    } else if (/^ {4}\S/.test(text) && before === '') {
      throw new Error(`${page}:${number + 1}: a block without a fence has no language, so nobody can tell how to run it`);
    }
    before = text.trim();
  });
  return blocks;
}

/** Whether the crates' tests compile the Rust of a page: it is included in the documentation of one. */
export function isCompiled(page) {
  const libraries = readdirSync(join(REPOSITORY, 'crates')).map((crate) => join(REPOSITORY, 'crates', crate, 'src/lib.rs'));
  return libraries.some((library) => {
    try {
      return readFileSync(library, 'utf8').includes(`include_str!("../../../${page}")`);
    } catch {
      return false; // a crate that is a program alone
    }
  });
}

/** A folder where blocks run: below this one, so that what they import is found, with `taut` and `cargo` on its PATH, and the examples. */
export class Workshop {
  #home = mkdtempSync(join(fileURLToPath(new URL('.', import.meta.url)), '.blocks-'));
  #programs = join(this.#home, 'bin');
  #count = 0;

  constructor() {
    mkdirSync(this.#programs);
    symlinkSync(join(REPOSITORY, 'examples'), join(this.#home, 'examples'));
    this.#program('taut', `exec ${TAUT} "$@"`);
    // What takes minutes is replaced by what it leads to; that there is what it names is looked at.
    this.#program('cargo', [
      `cd ${REPOSITORY}`,
      'case "$*" in',
      `  "run --release -- "*) shift 3; exec ${TAUT} "$@" ;;`,
      '  "install --path crates/taut-cli") grep -q \'^name = "taut-cli"\' crates/taut-cli/Cargo.toml ;;',
      '  "build --release --features otel") grep -q "^otel = " crates/taut-cli/Cargo.toml ;;',
      '  *) echo "cargo $* has no stand-in here" >&2; exit 1 ;;',
      'esac',
    ].join('\n'));
  }

  /** Runs a command with the block as a file, whose name is put in the place of `FILE`; `input` is what it reads. */
  run(command, { file, text, input, environment = {} }) {
    const path = file && join(this.#home, `${this.#count += 1}-${file}`);
    if (path) writeFileSync(path, text);
    return new Run(command.map((word) => (word === 'FILE' ? path : word)), input, {
      cwd: this.#home,
      env: { ...process.env, ...environment, PATH: `${this.#programs}:${process.env.PATH}` },
    });
  }

  close() { rmSync(this.#home, { recursive: true }); }

  #program(name, script) {
    const path = join(this.#programs, name);
    writeFileSync(path, `#!/usr/bin/env bash\nset -euo pipefail\n${script}\n`);
    chmodSync(path, 0o755);
  }
}

/** A block that runs. */
class Run {
  output = '';
  #process; #ended; #waiting = [];

  constructor([program, ...parameters], input, options) {
    // A group of its own: what it has started ends with it.
    this.#process = spawn(program, parameters, { ...options, detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
    this.#process.stdin.on('error', () => {}); // it need not read
    this.#process.stdin.end(input);
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => { this.output += text; this.#look(); });
    }
    this.#ended = once(this.#process, 'close').then(([code, signal]) => { this.code = code ?? signal; this.#look(); });
    this.#ended.catch((error) => { this.output += error.message; this.code = 'not started'; this.#look(); });
  }

  /** Waits for the end, and gives the exit code. */
  async end() {
    await within(PATIENCE, this.#ended, () => `it did not end:\n${this.output}`);
    return this.code;
  }

  /** Waits until it has printed this, or has ended: whether it has printed it. */
  async says(text) {
    const said = new Promise((resolve) => { this.#waiting.push({ text, resolve }); this.#look(); });
    return within(PATIENCE, said, () => `it did not say ${text}:\n${this.output}`);
  }

  /** Asks it to end, and gives the exit code or the signal. */
  async stop() {
    if (this.code === undefined) process.kill(-this.#process.pid, 'SIGTERM');
    return this.end();
  }

  #look() {
    this.#waiting = this.#waiting.filter(({ text, resolve }) => {
      const isOver = this.output.includes(text) || this.code !== undefined;
      if (isOver) resolve(this.output.includes(text));
      return !isOver;
    });
  }
}
