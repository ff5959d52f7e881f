// A strip that stands still: ECG paper in millimetres, waveform, beats and their RR, spectrogram on the same time axis.
// @ts-check
import { h } from "./dom.js";
import { clock } from "./format.js";
import { screen } from "./sweep.js";
import { T } from "./texts.js";
import { BEATS, ECTOPIC } from "./vocabulary.js";

/**
 * @typedef {{ms: number, epoch?: number, sample: number, code: string, p: number, second: string, second_p: number,
 *   rr_ms: number, map?: Uint8Array | string | null}} StripBeat
 * @typedef {{from_ms: number, fs: number, lead: string, mv: ArrayLike<number | null>, beats: StripBeat[],
 *   marks?: {ms: number, text: string, level: string}[],
 *   columns?: {data: Uint8Array, from_ms: number, column_ms: number, bins: number} | null}} StripData
 * @typedef {{speed: number, gain: number | null, heat?: boolean}} StripOptions mm/s, mm/mV
 */

const TOP = 34;
const HEAT = 96;
const STEPS_MM = [20, 10, 5, 2.5];
/** A canvas wider than this is refused by browsers. */
const WIDEST = 16_000;

export class Strip {
  /** @param {StripData} data @param {import("./palette.js").Palette} palette @param {StripOptions} options @param {number} [height] */
  constructor(data, palette, options, height = 230) {
    this.data = data;
    this.palette = palette;
    this.options = options;
    this.height = height;
    /** @type {StripBeat | null} */
    this.chosen = null;
    /** Called with the beat under the pointer. @type {(beat: StripBeat) => void} */
    this.onbeat = () => {};
    this.canvas = h("canvas", { role: "img" });
    this.inner = h("div", { class: "held-inner" }, this.canvas);
    this.root = h("div", { class: "held", tabindex: "0", role: "group", "aria-label": T.stripName(data.lead, clock(data.from_ms)) }, this.inner);
    this.canvas.addEventListener("pointermove", (event) => this.hover(event.offsetX));
    this.canvas.addEventListener("click", (event) => this.hover(event.offsetX));
    this.draw();
  }

  /** CSS pixels a second. */
  get pace() {
    return this.options.speed * screen.pxPerMm;
  }

  get seconds() {
    return this.data.fs ? this.data.mv.length / this.data.fs : 0;
  }

  /** Place of a moment, CSS pixels. @param {number} ms */
  x(ms) {
    return ((ms - this.data.from_ms) / 1000) * this.pace;
  }

  /** Moment at a place. @param {number} x */
  ms(x) {
    return this.data.from_ms + (x / this.pace) * 1000;
  }

  /** @param {number} x */
  hover(x) {
    const beat = this.nearest(this.ms(x));
    if (beat && Math.abs(this.x(beat.ms) - x) < 0.35 * this.pace && beat !== this.chosen) this.choose(beat);
  }

  /** @param {number} ms */
  nearest(ms) {
    /** @type {StripBeat | null} */
    let best = null;
    for (const beat of this.data.beats) if (!best || Math.abs(beat.ms - ms) < Math.abs(best.ms - ms)) best = beat;
    return best;
  }

  /** @param {1 | -1} by */
  step(by) {
    const { beats } = this.data;
    const at = this.chosen ? beats.indexOf(this.chosen) : by > 0 ? -1 : beats.length;
    const beat = beats[Math.max(0, Math.min(beats.length - 1, at + by))];
    if (beat) this.choose(beat);
  }

  /** @param {StripBeat} beat */
  choose(beat) {
    this.chosen = beat;
    this.draw();
    const x = this.x(beat.ms);
    const { scrollLeft, clientWidth } = this.root;
    if (clientWidth && (x < scrollLeft + 30 || x > scrollLeft + clientWidth - 30)) this.root.scrollLeft = x - clientWidth / 2;
    this.onbeat(beat);
  }

  /** Gain that fits, mm a mV. */
  gain() {
    if (this.options.gain !== null) return { mm: this.options.gain, mid: this.middle() };
    const { low, high } = this.range();
    const room = (this.height - TOP) / screen.pxPerMm;
    return { mm: STEPS_MM.find((mm) => (high - low) * mm < room * 0.95) ?? 2.5, mid: this.middle() };
  }

  range() {
    let low = Infinity;
    let high = -Infinity;
    for (let i = 0; i < this.data.mv.length; i++) {
      const mv = this.data.mv[i];
      if (mv === null || Number.isNaN(mv)) continue;
      if (mv < low) low = mv;
      if (mv > high) high = mv;
    }
    return low <= high ? { low, high } : { low: -0.5, high: 0.5 };
  }

  middle() {
    const { low, high } = this.range();
    return (low + high) / 2;
  }

  draw() {
    const ratio = Math.min(2, devicePixelRatio || 1);
    const { canvas, palette } = this;
    const width = Math.min(WIDEST / ratio, Math.ceil(Math.max(this.seconds * this.pace, 40)));
    const tall = this.height + (this.data.columns && this.options.heat ? HEAT : 0);
    canvas.width = width * ratio;
    canvas.height = tall * ratio;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${tall}px`;
    this.inner.style.width = `${width}px`;
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.scale(ratio, ratio);
    pen.fillStyle = palette.paper;
    pen.fillRect(0, 0, width, tall);
    const mm = screen.pxPerMm;
    for (const [step, colour] of /** @type {[number, string][]} */ ([[1, palette.fine], [5, palette.bold]])) {
      pen.fillStyle = colour;
      for (let i = 0; i * mm <= width; i += step) pen.fillRect(Math.round(i * mm), 0, 1, this.height);
      for (let i = 0; i * mm <= this.height; i += step) pen.fillRect(0, Math.round(i * mm), width, 1);
    }
    this.trace(pen);
    this.beats(pen);
    this.marks(pen);
    this.heat(pen, width);
    canvas.setAttribute("aria-label", T.stripSays(this.seconds.toFixed(0), this.data.beats.length));
  }

  /** @param {CanvasRenderingContext2D} pen */
  trace(pen) {
    const { mv, fs } = this.data;
    const { mm, mid } = this.gain();
    const scale = mm * screen.pxPerMm;
    const centre = TOP + (this.height - TOP) / 2;
    pen.strokeStyle = this.palette.trace;
    pen.lineWidth = 1.4;
    pen.lineJoin = "round";
    pen.beginPath();
    let down = false;
    for (let i = 0; i < mv.length; i++) {
      const value = mv[i];
      if (value === null || Number.isNaN(value)) {
        down = false;
        continue;
      }
      const x = (i / fs) * this.pace;
      const y = centre - (value - mid) * scale;
      if (down) pen.lineTo(x, y);
      else pen.moveTo(x, y);
      down = true;
    }
    pen.stroke();
    this.used = mm;
  }

  /** @param {CanvasRenderingContext2D} pen */
  beats(pen) {
    const { beats } = this.data;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    beats.forEach((beat, i) => {
      const x = this.x(beat.ms);
      const colour = this.palette.beats[beat.code] ?? this.palette.text;
      pen.font = "700 12px Inter, sans-serif";
      pen.fillStyle = colour;
      if (ECTOPIC.has(beat.code) || beat === this.chosen) {
        pen.beginPath();
        pen.roundRect(x - 8, 2, 16, 15, 3);
        pen.fill();
        if (beat === this.chosen) pen.fillRect(x - 0.5, 17, 1, this.height - 17);
        pen.fillStyle = this.palette.paper;
      }
      pen.fillText(BEATS[beat.code]?.letter ?? beat.code, x, 10);
      const before = beats[i - 1];
      if (!before || !beat.rr_ms || this.x(beat.ms) - this.x(before.ms) < 34) return;
      pen.font = "500 11px Inter, sans-serif";
      pen.fillStyle = this.palette.text;
      pen.fillText(String(beat.rr_ms), (x + this.x(before.ms)) / 2, 25);
    });
  }

  /** Where alarms began. @param {CanvasRenderingContext2D} pen */
  marks(pen) {
    // A name that would lie on another goes a line higher.
    /** @type {{from: number, to: number, line: number}[]} */
    const named = [];
    for (const mark of this.data.marks ?? []) {
      const x = this.x(mark.ms);
      pen.fillStyle = this.palette.levels[mark.level] ?? this.palette.text;
      pen.fillRect(x - 1, TOP, 2, this.height - TOP);
      pen.font = "650 12px Inter, sans-serif";
      const wide = pen.measureText(mark.text).width + 8;
      const late = x > this.seconds * this.pace - wide;
      const [from, to] = late ? [x - wide, x] : [x, x + wide];
      const taken = new Set(named.filter((one) => one.from < to && one.to > from).map((one) => one.line));
      let line = 0;
      while (taken.has(line)) line++;
      named.push({ from, to, line });
      pen.textAlign = late ? "right" : "left";
      pen.textBaseline = "alphabetic";
      pen.fillText(mark.text, late ? x - 5 : x + 5, this.height - 6 - 15 * line);
    }
  }

  /** @param {CanvasRenderingContext2D} pen @param {number} width */
  heat(pen, width) {
    const columns = this.data.columns;
    if (!columns || !this.options.heat) return;
    const count = Math.floor(columns.data.length / columns.bins);
    if (!count) return;
    const image = new ImageData(count, columns.bins);
    const words = new Uint32Array(image.data.buffer);
    for (let c = 0; c < count; c++) {
      for (let b = 0; b < columns.bins; b++) words[(columns.bins - 1 - b) * count + c] = this.palette.heat[columns.data[c * columns.bins + b]];
    }
    const small = document.createElement("canvas");
    small.width = count;
    small.height = columns.bins;
    /** @type {CanvasRenderingContext2D} */ (small.getContext("2d")).putImageData(image, 0, 0);
    pen.fillStyle = `rgb(${this.palette.heatGround})`;
    pen.fillRect(0, this.height, width, HEAT);
    const half = columns.column_ms / 2;
    const x0 = this.x(columns.from_ms - half);
    pen.drawImage(small, x0, this.height + 2, this.x(columns.from_ms + count * columns.column_ms - half) - x0, HEAT - 2);
  }
}
