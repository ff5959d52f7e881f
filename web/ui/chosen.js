// The chosen beat: its class, the second best, and what in its spectrogram made the verdict.
// @ts-check
import { h } from "./dom.js";
import { clock } from "./format.js";
import { T } from "./texts.js";
import { BEATS } from "./vocabulary.js";
import { showReason } from "./why.js";
import { W } from "./whytexts.js";

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
 * @param {import("./palette.js").Palette} palette
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

/** How long a beat stays chosen before its map is asked for, so that stepping asks for one only; ms. */
const PAUSE_MS = 400;

/** Samples by which a beat judged again may lie beside the first time. */
const NEAR = 15;

/** @param {string} code */
export const beatName = (code) => BEATS[code]?.name ?? code;

/** @param {number} p */
export const percent = (p) => `${(p * 100).toFixed(1)} %`;

export class Chosen {
  /**
   * @param {import("./trace.js").Trace} trace
   * @param {import("./palette.js").Palette} palette
   * @param {{csrf: string} | null} [api] with it, maps of normal beats are worked out when they are chosen
   */
  constructor(trace, palette, api = null) {
    this.trace = trace;
    this.palette = palette;
    this.api = api;
    /** Beats judged again, by index. @type {{index: number, class: string, p: number, second: string, map: Uint8Array}[]} */
    this.again = [];
    this.axis = trace.axis;
    /** Spectrogram of the chosen beat: its map may come when the page holds it no longer. @type {{beat: unknown, columns: (Uint8Array | null)[]}} */
    this.picture = { beat: null, columns: [] };
    /** @type {any} */
    this.reason = null;
    this.timer = 0;
    this.asking = false;
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
    clearTimeout(this.timer);
    this.timer = 0;
    if (this.axis !== this.trace.axis) this.forget();
    const known = this.again.find((one) => Math.abs(one.index - beat.index) <= NEAR);
    if (beat.map?.length) this.draw(beat, beat.map, T.mapOf(beatName(beat.code), beatName(beat.second), beat.map[0]));
    else if (known) this.draw(beat, known.map, `${W.again(beatName(known.class), percent(known.p))} ${T.mapOf(beatName(known.class), beatName(known.second), known.map[0])}`);
    else {
      this.draw(beat, null, this.api ? W.working : W.noMap);
      if (this.api) this.timer = setTimeout(() => this.ask(beat), PAUSE_MS);
    }
  }

  /** Places on the sample axis mean nothing any more after a new begin. */
  forget() {
    this.axis = this.trace.axis;
    this.again = [];
    this.reason = null;
  }

  /** Have the half minute that the page holds judged again, for the maps of all its beats. @param {import("./trace.js").Beat} beat */
  async ask(beat) {
    if (this.asking || !this.api) return;
    this.asking = true;
    const { trace } = this;
    const { axis } = trace;
    const first = Math.max(trace.start, trace.end - 32 * trace.rate);
    const samples = Array.from({ length: trace.end - first }, (_, i) => trace.at(first + i)).map((mv) => (Number.isFinite(mv) ? Number(mv.toFixed(3)) : null));
    try {
      const answer = await fetch("/api/classify", { method: "POST", body: JSON.stringify({ rate: trace.rate, samples }),
        headers: { "X-CSRF-Token": this.api.csrf, "X-File-Name": "strip.json" } });
      if (!answer.ok) throw new Error(String(answer.status));
      const result = await answer.json();
      if (axis !== trace.axis) throw new Error("begun anew");
      this.again = result.beats.map((/** @type {any} */ one) => ({ index: first + one.sample, class: one.class, p: one.p, second: one.second,
        map: Uint8Array.from(atob(one.map), (c) => c.charCodeAt(0)) }));
      this.reason = result.last;
      this.asking = false;
      if (!this.beat) return;
      if (this.beat.map?.length || this.again.some((one) => Math.abs(one.index - /** @type {any} */ (this.beat).index) <= NEAR)) this.show(this.beat);
      else if (this.beat === beat) this.draw(beat, null, W.againNot);
      else this.ask(this.beat);
    } catch {
      this.asking = false;
      if (this.beat === beat) this.draw(beat, null, W.failed);
    }
  }

  /** @param {import("./trace.js").Beat} beat @param {Uint8Array | null} map @param {string} note */
  draw(beat, map, note) {
    const canvas = h("canvas", { class: "map" });
    const hop = this.trace.columns?.hop ?? 8;
    const first = Math.floor((beat.index + hop / 2) / hop) - BEFORE;
    if (this.picture.beat !== beat) this.picture = { beat, columns: [] };
    const { columns } = this.picture;
    const whole = drawMap(canvas, this.palette, (c) => (columns[c] ??= this.trace.column(first + c)?.slice() ?? null), map);
    const letter = h("b", { class: "cls" }, BEATS[beat.code]?.letter ?? beat.code);
    letter.style.color = this.palette.beats[beat.code] ?? "";
    const facts = [[T.second, `${beatName(beat.second)}, ${percent(beat.second_p)}`], [T.rr, beat.rr_ms ? `${beat.rr_ms} ms` : "–"], [T.time, clock(beat.ms)]];
    this.root.replaceChildren(
      h("div", { class: "chosen-head" }, letter, h("b", {}, beatName(beat.code)), h("span", { class: "num" }, percent(beat.p))),
      canvas,
      h("p", { class: "note" }, `${note}${whole ? "" : ` ${T.mapGone}`}`),
      h("dl", { class: "chosen-facts" }, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
      ...(this.reason && this.reason.code !== "N" ? showReason(this.reason, this.palette) : []));
    this.root.dataset.code = beat.code;
    this.root.dataset.sample = String(beat.sample);
    this.root.dataset.map = map ? (beat.map?.length ? "yes" : "again") : "no";
  }
}
