// The chosen beat: its class, the second best, and what in its spectrogram made the verdict.
// @ts-check
import { h } from "./dom.js";
import { clock } from "./format.js";
import { BEATS, T } from "./texts.js";

/** Columns of a beat's spectral image, before and from its R peak; the map's cells lie STRIDE apart. As in the server. */
const BEFORE = 30;
const COLUMNS = 48;
const STRIDE = 8;
const CELLS = { time: 6, frequency: 3 };
const BINS = STRIDE * CELLS.frequency;
const NONE = 128;

/**
 * Value of a map at a column and bin, -1 (against the class) to 1 (for it).
 * @param {Uint8Array} map @param {number} column @param {number} bin
 */
export function mapAt(map, column, bin) {
  const x = Math.min(column / STRIDE, CELLS.time - 1);
  const y = Math.min(bin / STRIDE, CELLS.frequency - 1);
  const [i, j] = [Math.min(Math.floor(x), CELLS.time - 2), Math.min(Math.floor(y), CELLS.frequency - 2)];
  /** @param {number} a @param {number} b */
  const cell = (a, b) => (map[1 + a * CELLS.frequency + b] - NONE) / 127;
  const [u, v] = [x - i, y - j];
  return (1 - u) * ((1 - v) * cell(i, j) + v * cell(i, j + 1)) + u * ((1 - v) * cell(i + 1, j) + v * cell(i + 1, j + 1));
}

/**
 * Draw a map over a spectrogram, lowest frequency at the bottom.
 * @param {HTMLCanvasElement} canvas
 * @param {import("./sweep.js").Palette} palette
 * @param {(column: number) => (ArrayLike<number> | null)} values 0 to 255 of each bin
 * @param {Uint8Array | null} map
 * @returns {boolean} whether all of the spectrogram was there
 */
export function drawMap(canvas, palette, values, map) {
  const first = values(0);
  const bins = Math.min(BINS, first?.length ?? BINS);
  canvas.width = COLUMNS;
  canvas.height = bins;
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = pen.createImageData(COLUMNS, bins);
  let whole = true;
  for (let c = 0; c < COLUMNS; c++) {
    const column = values(c);
    if (!column) {
      whole = false;
      continue;
    }
    for (let b = 0; b < bins; b++) {
      const at = 4 * ((bins - 1 - b) * COLUMNS + c);
      const value = map ? mapAt(map, c, b) : 0;
      const paint = value > 0 ? palette.mapFor : palette.mapAgainst;
      const share = 0.85 * Math.abs(value);
      for (let k = 0; k < 3; k++) image.data[at + k] = (1 - share) * 0.75 * column[b] + share * paint[k];
      image.data[at + 3] = 255;
    }
  }
  pen.putImageData(image, 0, 0);
  return whole;
}

/** @param {string} code */
export const beatName = (code) => BEATS[code]?.name ?? code;

/** @param {number} p */
export const percent = (p) => `${(p * 100).toFixed(1)} %`;

export class Chosen {
  /**
   * @param {import("./trace.js").Trace} trace
   * @param {import("./sweep.js").Palette} palette
   */
  constructor(trace, palette) {
    this.trace = trace;
    this.palette = palette;
    /** @type {import("./trace.js").Beat | null} */
    this.beat = null;
    this.root = h("section", { class: "card chosen", "aria-live": "polite" }, h("p", { class: "none" }, T.chooseBeat));
  }

  /** Step to the beat before or after; without a chosen one begin at the latest. @param {-1 | 1} by */
  step(by) {
    const beats = this.trace.beats;
    const sample = this.beat?.sample;
    const at = sample === undefined ? -1 : beats.findIndex((beat) => beat.sample === sample);
    this.show(beats[at < 0 ? beats.length - 1 : Math.max(0, Math.min(beats.length - 1, at + by))]);
  }

  /** Choose the beat nearest to a sample. @param {number} index */
  near(index) {
    /** @type {import("./trace.js").Beat | undefined} */
    let best;
    for (const beat of this.trace.beats) if (!best || Math.abs(beat.index - index) < Math.abs(best.index - index)) best = beat;
    this.show(best);
  }

  /** @param {import("./trace.js").Beat | undefined} beat */
  show(beat) {
    if (!beat) return;
    this.beat = beat;
    const canvas = h("canvas", { class: "map" });
    const hop = this.trace.columns?.hop ?? 8;
    const first = Math.floor((beat.index + hop / 2) / hop) - BEFORE;
    const map = beat.map?.length ? beat.map : null;
    const whole = drawMap(canvas, this.palette, (c) => this.trace.column(first + c), map);
    const letter = h("b", { class: "cls" }, BEATS[beat.code]?.letter ?? beat.code);
    letter.style.color = this.palette.beats[beat.code] ?? "";
    const facts = [[T.second, `${beatName(beat.second)}, ${percent(beat.second_p)}`], [T.rr, beat.rr_ms ? `${beat.rr_ms} ms` : "–"], [T.time, clock(beat.ms)]];
    this.root.replaceChildren(
      h("div", { class: "chosen-head" }, letter, h("b", {}, beatName(beat.code)), h("span", { class: "num" }, percent(beat.p))),
      canvas,
      h("p", { class: "note" }, `${map ? T.mapOf(beatName(beat.code), beatName(beat.second), map[0]) : T.mapNone}${whole ? "" : ` ${T.mapGone}`}`),
      h("dl", { class: "chosen-facts" }, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
    this.root.dataset.code = beat.code;
    this.root.dataset.sample = String(beat.sample);
    this.root.dataset.map = map ? "yes" : "no";
  }
}
