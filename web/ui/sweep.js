// Sweeping waveform and spectrogram: only the new part is drawn each frame, an erase bar runs ahead of it.
// @ts-check
import { BEATS, ECTOPIC } from "./vocabulary.js";

/** CSS pixels of one millimetre: of the standard until the screen is calibrated. */
export const screen = { pxPerMm: 96 / 25.4 };
const ERASE_PX = 14;
const MARK_PX = 15;
const STEPS_MM = [40, 20, 10, 5, 2.5, 1.25];

/**
 * @typedef {{speed: number, gain: number | null, all: boolean, ground: string | null}} SweepOptions mm/s, mm/mV or null for
 *   automatic, every beat or ectopic ones only, ground of an opaque canvas (its key in the palette) or null for a clear one
 */

export class Sweep {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {import("./trace.js").Trace} trace
   * @param {import("./palette.js").Palette} palette
   * @param {SweepOptions} options
   * @param {HTMLCanvasElement | null} [under] spectrogram on the same time axis
   */
  constructor(canvas, trace, palette, options, under = null) {
    this.canvas = canvas;
    this.trace = trace;
    this.palette = palette;
    this.options = options;
    // An opaque canvas costs the compositor half of a clear one: nothing under it is drawn or blended.
    this.pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { alpha: options.ground === null }));
    this.under = under;
    this.underPen = under ? /** @type {CanvasRenderingContext2D} */ (under.getContext("2d")) : null;
    this.strip = document.createElement("canvas");
    this.width = this.height = 0;
    this.drawn = 0;
    this.cleared = 0;
    this.life = -1;
    this.column = 0;
    this.mid = 0;
    this.mm = 10;
    this.ranged = 0;
    /** @type {import("./trace.js").Beat[]} */
    this.late = [];
    /** Paintings of the whole canvas, and samples drawn; for the tests and the curious. */
    this.stats = { repaints: 0, samples: 0 };
    trace.sinks.add(this);
    /** Size in pixels of the screen: a canvas of any other size is scaled at every frame. @type {Map<Element, ResizeObserverSize>} */
    this.boxes = new Map();
    this.observer = new ResizeObserver((entries) => {
      for (const entry of entries) this.boxes.set(entry.target, entry.devicePixelContentBoxSize[0]);
      this.resize();
    });
    for (const one of under ? [canvas, under] : [canvas]) this.observer.observe(one, { box: "device-pixel-content-box" });
  }

  close() {
    this.observer.disconnect();
    this.trace.sinks.delete(this);
  }

  /** A beat was classified. @param {import("./trace.js").Beat} beat */
  beat(beat) {
    this.late.push(beat);
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    for (const [canvas, box] of /** @type {Map<HTMLCanvasElement, ResizeObserverSize>} */ (this.boxes)) {
      const width = Math.max(1, box.inlineSize);
      const height = Math.max(1, box.blockSize);
      if (canvas.width !== width || canvas.height !== height) {
        canvas.width = width;
        canvas.height = height;
      }
    }
    this.ratio = ratio;
    this.width = this.canvas.width / ratio;
    this.height = this.canvas.height / ratio;
    this.life = -1;
  }

  /** Device pixels a sample. */
  get scale() {
    return (this.options.speed * screen.pxPerMm * (this.ratio ?? 1)) / this.trace.rate;
  }

  /** Samples that fit on the canvas, a whole number of them so that the sweep never creeps. */
  get span() {
    return Math.max(1, Math.floor(this.canvas.width / this.scale));
  }

  /** Index of the sample that is drawn at a place of the canvas. @param {number} x CSS pixels from its left edge */
  sampleAt(x) {
    const head = Math.floor(this.trace.head);
    const place = Math.floor((x * (this.ratio ?? 1)) / this.scale);
    return head - ((((head - place) % this.span) + this.span) % this.span);
  }

  /** Height kept free for the marks of beats; a very low strip has none to spare. */
  get lane() {
    return this.height > 56 ? MARK_PX : 0;
  }

  /** Choose gain and middle so that the last seconds fit; changes only when they must. */
  fit() {
    const range = this.trace.range(6);
    if (!range) return;
    const room = this.height - this.lane;
    const fits = (/** @type {number} */ mm) => (range.high - range.low) * mm * screen.pxPerMm <= room;
    let mm = this.options.gain ?? this.mm;
    if (this.options.gain === null) {
      const best = STEPS_MM.find((step) => fits(step * 1.15)) ?? STEPS_MM[STEPS_MM.length - 1];
      // Down at once, up only when it is clearly worth it: a gain that dances can't be read.
      if (!this.ranged || !fits(mm) || best > 2 * mm) mm = best;
    }
    const half = room / 2 / (mm * screen.pxPerMm);
    const outside = range.high > this.mid + half || range.low < this.mid - half;
    if (mm === this.mm && !outside && this.ranged) return;
    const mid = (range.high + range.low) / 2;
    if (mm === this.mm && Math.abs(mid - this.mid) < 0.02 * half) return;
    this.mm = mm;
    this.mid = mid;
    this.life = -1;
  }

  /** @param {number} mv */
  y(mv) {
    const ratio = this.ratio ?? 1;
    return ((this.height + this.lane) / 2 - (mv - this.mid) * this.mm * screen.pxPerMm) * ratio;
  }

  /** Draw what is new. @param {number} now ms, of the display */
  frame(now) {
    const trace = this.trace;
    if (this.width < 2 || trace.end === 0) return;
    if (now - this.ranged > 1000) {
      this.fit();
      this.ranged = now;
    }
    const head = Math.floor(trace.head);
    if (this.life !== trace.life) this.repaint(head);
    else if (head > this.drawn) this.advance(this.drawn, head);
    if (this.late.length) this.marks(head);
  }

  /** @param {number} head */
  repaint(head) {
    this.stats.repaints++;
    this.life = this.trace.life;
    this.clear(0, this.canvas.width);
    const from = Math.max(this.trace.start, head - this.span + Math.ceil((ERASE_PX * (this.ratio ?? 1)) / this.scale));
    this.late = this.trace.beats.slice();
    this.column = 0;
    this.drawn = from;
    if (head > from) this.advance(from, head, false);
    this.drawn = head;
  }

  /** @param {number} from sample @param {number} to sample @param {boolean} [erase] */
  advance(from, to, erase = true) {
    const { span, scale } = this;
    if (erase) this.erase(from, to);
    const pen = this.pen;
    pen.strokeStyle = this.palette.trace;
    pen.lineWidth = 1.5 * (this.ratio ?? 1);
    pen.lineJoin = "round";
    pen.beginPath();
    let down = false;
    // Several samples of one pixel column become its least and largest, so that no R peak is lost.
    let column = -1;
    let low = 0;
    let high = 0;
    let last = 0;
    for (let i = Math.max(from - 1, this.trace.start); i < to; i++) {
      const mv = this.trace.at(i);
      const place = ((i % span) + span) % span;
      const x = place * scale;
      if (Number.isNaN(mv) || place === 0) {
        down = false;
        column = -1;
        if (Number.isNaN(mv)) continue;
      }
      const y = this.y(mv);
      if (down && Math.floor(x) === column) {
        if (y < low) pen.lineTo(x, (low = y));
        else if (y > high) pen.lineTo(x, (high = y));
        last = y;
        continue;
      }
      if (down) {
        if (last !== low && last !== high) pen.lineTo(x - scale, last);
        pen.lineTo(x, y);
      } else pen.moveTo(x, y);
      down = true;
      column = Math.floor(x);
      low = high = last = y;
    }
    if (down && last !== low && last !== high) pen.lineTo((((to - 1) % span) + span) % span * scale, last);
    pen.stroke();
    this.stats.samples += to - from;
    this.drawn = to;
    if (this.under) this.spectrum(to);
  }

  /** Clear ahead of the pen. @param {number} from @param {number} to */
  erase(from, to) {
    const { span, scale } = this;
    const ratio = this.ratio ?? 1;
    const width = this.canvas.width;
    const gap = ERASE_PX * ratio;
    const x0 = Math.floor((from % span) * scale + gap) - 1;
    const x1 = Math.ceil((from % span) * scale + (to - from) * scale + gap);
    this.clear(x0, Math.min(x1, width) - x0);
    if (x1 > width) this.clear(0, x1 - width);
  }

  /** @param {number} x @param {number} width */
  clear(x, width) {
    const { ground } = this.options;
    if (ground === null) this.pen.clearRect(x, 0, width, this.canvas.height);
    else {
      this.pen.fillStyle = this.palette.ground[ground];
      this.pen.fillRect(x, 0, width, this.canvas.height);
    }
    if (this.under) this.underPen?.clearRect(x, 0, width, this.under.height);
  }

  /** Spectrogram columns up to a sample. @param {number} to */
  spectrum(to) {
    const ring = this.trace.columns;
    const pen = this.underPen;
    const under = this.under;
    if (!ring || !pen || !under) return;
    const { span, scale } = this;
    // Column c is centred on sample c * hop.
    const first = Math.max(ring.start, this.column, Math.ceil((to - span) / ring.hop) + 1);
    const last = Math.floor(to / ring.hop - 0.5) + 1;
    if (this.strip.height !== ring.bins) {
      this.strip.width = 1;
      this.strip.height = ring.bins;
    }
    const stripPen = /** @type {CanvasRenderingContext2D} */ (this.strip.getContext("2d"));
    const image = stripPen.createImageData(1, ring.bins);
    const words = new Uint32Array(image.data.buffer);
    for (let c = first; c < last; c++) {
      const values = this.trace.column(c);
      if (!values) break;
      for (let b = 0; b < ring.bins; b++) words[ring.bins - 1 - b] = this.palette.heat[values[b]];
      stripPen.putImageData(image, 0, 0);
      const place = (((c - 0.5) * ring.hop) % span) * scale;
      const x0 = Math.round(place);
      const x1 = Math.round(place + ring.hop * scale);
      pen.drawImage(this.strip, 0, 0, 1, ring.bins, x0, 0, Math.max(1, x1 - x0), under.height);
      this.column = c + 1;
    }
  }

  /** Marks of the beats that the sweep has reached. @param {number} head */
  marks(head) {
    const { pen, span, scale } = this;
    const ratio = this.ratio ?? 1;
    // Under the mark the spectrogram must be drawn already, or its next column would cover the tick.
    const ready = head - (this.under ? 2 * (this.trace.columns?.hop ?? 0) : 0);
    // Above the trace; where no lane is free, at its foot.
    const top = this.lane ? 1 : this.canvas.height - 14 * ratio;
    const oldest = head - span + (ERASE_PX * 1.5 * ratio) / scale;
    pen.font = `700 ${11 * ratio}px Inter, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    this.late = this.late.filter((beat) => {
      if (beat.index > ready) return true;
      if (beat.index < oldest || (!this.options.all && !ECTOPIC.has(beat.code))) return false;
      const x = (((beat.index % span) + span) % span) * scale;
      const colour = this.palette.beats[beat.code] ?? this.palette.text;
      const letter = BEATS[beat.code]?.letter ?? beat.code;
      pen.fillStyle = colour;
      if (ECTOPIC.has(beat.code)) {
        const size = 7 * ratio;
        pen.beginPath();
        pen.roundRect(x - size, top, 2 * size, 13 * ratio, 3 * ratio);
        pen.fill();
        pen.fillStyle = this.palette.paper;
      }
      pen.fillText(letter, x, top + 7 * ratio);
      const under = this.underPen;
      if (under && this.under) {
        under.fillStyle = colour;
        under.globalAlpha = 0.75;
        under.fillRect(Math.round(x), 0, Math.max(1, ratio), 7 * ratio);
        under.globalAlpha = 1;
      }
      return false;
    });
  }
}

/** ECG paper, drawn once for each size. @param {HTMLCanvasElement} canvas @param {import("./palette.js").Palette} palette */
export function paper(canvas, palette) {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const mm = screen.pxPerMm * ratio;
  for (const bold of [false, true]) {
    pen.fillStyle = bold ? palette.bold : palette.fine;
    const step = bold ? 5 : 1;
    for (let i = 0; i * mm <= canvas.width; i += step) pen.fillRect(Math.round(i * mm), 0, ratio, canvas.height);
    for (let i = 0; i * mm <= canvas.height; i += step) pen.fillRect(0, Math.round(i * mm), canvas.width, ratio);
  }
}
