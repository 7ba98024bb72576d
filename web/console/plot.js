/** A live plot of the last five minutes: one or two lines over time, and their values under the pointer. */
import { create, number, rate, svg, write } from './dom.js';

const SAMPLES = 300;
const WIDTH = 600;
const HEIGHT = 150;
const TOP = 8;

export class Plot {
  #series; #values; #picture; #scale; #cross; #text;

  /** `series` is a list of {name, className}; what are no rates are whole numbers. */
  constructor(figure, title, series, { whole = false } = {}) {
    this.#text = whole ? number : rate;
    this.#picture = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    for (const part of [0, 0.5, 1]) {
      const y = TOP + (HEIGHT - TOP - 1) * part;
      this.#picture.append(svg('path', { class: 'grid', d: `M0 ${y}H${WIDTH}` }));
    }
    this.#series = series.map(({ name, className }) => {
      const area = svg('path', { class: `area ${className}` });
      const line = svg('path', { class: `line ${className}` });
      this.#picture.append(area, line);
      const value = create('b', '', '–');
      return { name, area, line, value, key: create('span', `key ${className}`, create('i'), `${name} `, value) };
    });
    this.#cross = svg('path', { class: 'cross' });
    this.#picture.append(this.#cross);
    this.#scale = [create('span'), create('span')];
    this.#values = [];
    const field = create('div', 'field', this.#picture, create('div', 'scale', ...this.#scale));
    field.addEventListener('pointermove', ({ clientX }) => {
      const { left, width } = field.getBoundingClientRect();
      this.#point((clientX - left) / width);
    });
    field.addEventListener('pointerleave', () => this.#point(null));
    const heading = create('figcaption', 'heading', create('h3', '', title), create('p', '', ...this.#series.map(({ key }) => key)));
    figure.append(heading, field, create('div', 'axis', create('span', '', '5 min ago'), this.when = create('span', '', 'now')));
    figure.ariaLabel = title;
    this.#draw();
  }

  /** Adds a sample: a value for each of the series. */
  add(values) {
    this.#values.push(values);
    if (this.#values.length > SAMPLES) this.#values.shift();
    this.#draw();
  }

  clear() {
    this.#values = [];
    this.#draw();
  }

  #pointed = null;

  #point(part) {
    this.#pointed = part;
    this.#tell();
  }

  /** What stands beside the names: the newest values, or those under the pointer. */
  #tell() {
    const back = this.#pointed === null ? 0 : Math.round((1 - this.#pointed) * (SAMPLES - 1));
    const values = this.#values.at(-1 - back);
    this.#series.forEach(({ value }, index) => write(value, values ? this.#text(values[index]) : '–'));
    const x = WIDTH * (1 - back / (SAMPLES - 1));
    this.#cross.setAttribute('d', this.#pointed === null || !values ? '' : `M${x} 0V${HEIGHT}`);
    write(this.when, back ? `${back} s ago` : 'now');
  }

  #draw() {
    const most = nice(Math.max(1, ...this.#values.flat()));
    const y = (value) => (TOP + (HEIGHT - TOP - 1) * (1 - value / most)).toFixed(1);
    const first = SAMPLES - this.#values.length;
    const x = (index) => (((first + index) / (SAMPLES - 1)) * WIDTH).toFixed(1);
    this.#series.forEach(({ area, line }, number) => {
      const points = this.#values.map((values, index) => `${x(index)} ${y(values[number])}`);
      line.setAttribute('d', points.length > 1 ? `M${points.join('L')}` : '');
      area.setAttribute('d', points.length > 1 ? `M${x(0)} ${HEIGHT}L${points.join('L')}L${WIDTH} ${HEIGHT}Z` : '');
    });
    write(this.#scale[0], this.#text(most));
    write(this.#scale[1], most >= 2 ? this.#text(most / 2) : '');
    this.#tell();
  }
}

/** The next of 1, 2, 5, 10, 20 … */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}
