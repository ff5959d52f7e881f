// Trends of hours and days on one time axis: rate, PVCs, fibrillation, with the alarms above and the limits across.
// @ts-check
import { part, query } from "./api.js";
import { h, mark, put } from "./dom.js";
import { clock, kindName, time } from "./format.js";
import { T } from "./texts.js";
import { level } from "./ward.js";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
export const SPANS = [{ ms: HOUR, text: "1 h" }, { ms: 6 * HOUR, text: "6 h" }, { ms: 24 * HOUR, text: "24 h" }, { ms: 168 * HOUR, text: "7 d" }];
const AGAIN_MS = 60_000;
const LEFT = 46;
const ALARMS = 18;
const FOOT = 20;
/** Bands from above: what is drawn, its share of the height, its top value at least. */
const BANDS = [{ key: "hr", share: 0.56, least: 120, text: T.trendHr }, { key: "pvc", share: 0.22, least: 5, text: T.trendPvc }, { key: "af", share: 0.22, least: 1, text: T.trendAf }];
const POINTS = 700;

/**
 * @typedef {{step_ms: number, ms: number[], hr: (number | null)[], hr_min: (number | null)[], hr_max: (number | null)[],
 *   pvc: (number | null)[], sveb: (number | null)[], af: (number | null)[], quality: (number | null)[]}} TrendData
 */

export class Trends {
  /** @param {string} patient @param {import("./view.js").Parts} parts */
  constructor(patient, parts) {
    this.patient = patient;
    this.parts = parts;
    this.span = SPANS[2].ms;
    /** @type {TrendData | null} */
    this.data = null;
    /** @type {{ms: number, kind: string, level: string, to: number | null}[]} */
    this.alarms = [];
    /** Rates across the first band. @type {{value: number, text: string}[]} */
    this.limits = [];
    this.cursor = -1;
    this.loaded = 0;
    this.canvas = h("canvas", { tabindex: "0", role: "img", "aria-label": T.trends });
    this.said = h("p", { class: "note trend-said" });
    this.buttons = SPANS.map(({ ms, text }) => h("button", { type: "button", "aria-pressed": String(ms === this.span), onclick: () => {
      this.span = ms;
      this.buttons.forEach((button, i) => mark(button, "aria-pressed", String(SPANS[i].ms === ms)));
      this.load();
    } }, text));
    this.root = h("section", { class: "card trends" },
      h("div", { class: "row" }, h("h2", {}, T.trends), h("div", { class: "seg", role: "group", "aria-label": T.trendSpan }, ...this.buttons), this.said),
      this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("keydown", (event) => {
      const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
      if (!by || !this.data) return;
      event.preventDefault();
      event.stopPropagation();
      const last = this.data.ms.length - 1;
      this.cursor = this.cursor < 0 ? last : Math.max(0, Math.min(last, this.cursor + by));
      this.draw();
    });
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.canvas);
    this.load();
  }

  close() {
    this.observer.disconnect();
  }

  tick() {
    if (Date.now() - this.loaded > AGAIN_MS) this.load();
  }

  async load() {
    this.loaded = Date.now();
    const to = Math.round(this.parts.ward.now());
    const from = to - this.span;
    const step = Math.max(60_000, Math.ceil(this.span / POINTS / 60_000) * 60_000);
    const { api } = this.parts;
    try {
      const [data, alarms] = await Promise.all([
        api.get(`/api/patients/${part(this.patient)}/trends${query({ from, to, step })}`),
        api.get(`/api/alarms${query({ patient: this.patient, since: from, until: to, limit: 1000 })}`).catch(() => [])]);
      this.data = data;
      this.alarms = alarms.map((/** @type {any} */ { alarm }) => ({ ms: alarm.onset_ms, kind: alarm.kind, level: level(alarm), to: alarm.cleared_ms }));
      this.from = from;
      this.to = to;
      put(this.said, data.ms.length && data.hr.some((/** @type {unknown} */ v) => v !== null) ? "" : T.trendNone);
    } catch (error) {
      put(this.said, error instanceof Error ? error.message : String(error));
    }
    this.cursor = -1;
    this.draw();
  }

  /** @param {number} x */
  point(x) {
    const { data } = this;
    if (!data?.ms.length) return;
    const ms = this.from + ((x - LEFT) / (this.width - LEFT)) * (this.to - this.from);
    this.cursor = Math.max(0, Math.min(data.ms.length - 1, Math.round((ms - data.ms[0]) / data.step_ms)));
    this.draw();
  }

  get width() {
    return this.canvas.clientWidth;
  }

  from = 0;
  to = 1;

  /** @param {number} ms */
  x(ms) {
    return LEFT + ((ms - this.from) / (this.to - this.from)) * (this.width - LEFT);
  }

  draw() {
    const { canvas, data } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const ratio = Math.min(2, devicePixelRatio || 1);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.scale(ratio, ratio);
    pen.font = "500 12px Inter, sans-serif";
    const room = height - ALARMS - FOOT;
    let top = ALARMS;
    for (const band of BANDS) {
      this.band(pen, band, top, room * band.share - 8);
      top += room * band.share;
    }
    this.axis(pen, height);
    this.ticks(pen, height);
    if (data && this.cursor >= 0) this.readout(pen, height);
    const known = data?.hr.filter((v) => v !== null) ?? [];
    if (known.length) mark(canvas, "aria-label", T.trendSays(Math.round(Math.min(...known)), Math.round(Math.max(...known)), this.alarms.length));
  }

  /** @param {CanvasRenderingContext2D} pen @param {typeof BANDS[number]} band @param {number} top @param {number} height */
  band(pen, band, top, height) {
    const { palette } = this.parts;
    const data = this.data;
    const columns = /** @type {Record<string, (number | null)[]>} */ (/** @type {unknown} */ (data ?? {}));
    const values = columns[band.key] ?? [];
    const highs = band.key === "hr" ? (data?.hr_max ?? []) : values;
    const peak = Math.max(band.least, ...highs.map((v) => v ?? 0), ...(band.key === "hr" ? this.limits.map((one) => one.value) : []));
    const max = band.key === "hr" ? Math.ceil(peak / 20) * 20 : peak;
    const y = (/** @type {number} */ v) => top + height - (v / max) * height;
    pen.fillStyle = palette.line;
    pen.fillRect(LEFT, top + height, this.width - LEFT, 1);
    pen.fillStyle = palette.text;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.fillText(band.key === "af" ? "100 %" : String(Math.round(max)), LEFT - 6, top + 6);
    pen.fillText("0", LEFT - 6, top + height - 4);
    pen.textAlign = "left";
    if (!data) {
      this.name(pen, band.text, top);
      return;
    }
    const wide = Math.max(1, this.x(data.ms[0] + data.step_ms) - this.x(data.ms[0]));
    const colour = band.key === "hr" ? palette.trace : band.key === "pvc" ? palette.beats.V : palette.beats.A;
    pen.fillStyle = colour;
    if (band.key === "hr") {
      pen.globalAlpha = 0.25;
      data.ms.forEach((ms, i) => {
        const [low, high] = [data.hr_min[i], data.hr_max[i]];
        if (low !== null && high !== null) pen.fillRect(this.x(ms), y(high), wide, Math.max(1, y(low) - y(high)));
      });
      pen.globalAlpha = 1;
      this.line(pen, data.ms, values, y, colour);
      this.across(pen, y);
    } else {
      data.ms.forEach((ms, i) => {
        const value = values[i];
        if (value) pen.fillRect(this.x(ms), y(value), Math.max(1, wide - 0.5), top + height - y(value));
      });
    }
    this.name(pen, band.text, top);
  }

  /** Name of a band, over whatever line crosses it. @param {CanvasRenderingContext2D} pen @param {string} text @param {number} top */
  name(pen, text, top) {
    const { palette } = this.parts;
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    pen.fillStyle = palette.ground[""];
    pen.fillRect(LEFT + 3, top - 1, pen.measureText(text).width + 6, 14);
    pen.fillStyle = palette.text;
    pen.fillText(text, LEFT + 6, top + 6);
  }

  /** @param {CanvasRenderingContext2D} pen @param {number[]} at @param {(number | null)[]} values @param {(v: number) => number} y @param {string} colour */
  line(pen, at, values, y, colour) {
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5;
    pen.beginPath();
    let down = false;
    at.forEach((ms, i) => {
      const value = values[i];
      if (value !== null) {
        const x = this.x(ms + (this.data?.step_ms ?? 0) / 2);
        if (down) pen.lineTo(x, y(value));
        else pen.moveTo(x, y(value));
      }
      down = value !== null;
    });
    pen.stroke();
  }

  /** Limits of the rate. @param {CanvasRenderingContext2D} pen @param {(v: number) => number} y */
  across(pen, y) {
    const { palette } = this.parts;
    pen.setLineDash([5, 4]);
    pen.strokeStyle = palette.levels.medium;
    pen.textAlign = "right";
    pen.textBaseline = "bottom";
    for (const { value } of this.limits) {
      pen.beginPath();
      pen.moveTo(LEFT, y(value));
      pen.lineTo(this.width, y(value));
      pen.stroke();
    }
    pen.setLineDash([]);
    // Over all lines, so that none runs through a figure.
    this.limits.forEach(({ value, text }, i) => {
      const x = this.width - (i % 3 ? 4 : 34);
      const wide = pen.measureText(text).width;
      pen.fillStyle = palette.ground[""];
      pen.fillRect(x - wide - 2, y(value) - 14, wide + 4, 13);
      pen.fillStyle = palette.levels.medium;
      pen.fillText(text, x, y(value) - 1);
    });
  }

  /** Alarms above, each from its begin to its end. @param {CanvasRenderingContext2D} pen @param {number} height */
  ticks(pen, height) {
    const { palette } = this.parts;
    for (const alarm of this.alarms) {
      const x = this.x(alarm.ms);
      if (x < LEFT) continue;
      pen.fillStyle = palette.levels[alarm.level];
      const rise = alarm.level === "high" ? 14 : alarm.level === "medium" ? 10 : 6;
      pen.fillRect(x - 1, ALARMS - 2 - rise, Math.max(2, this.x(alarm.to ?? alarm.ms) - x), rise);
      pen.globalAlpha = 0.35;
      if (alarm.level === "high") pen.fillRect(x, ALARMS, 1, height - ALARMS - FOOT);
      pen.globalAlpha = 1;
    }
  }

  /** @param {CanvasRenderingContext2D} pen @param {number} height */
  axis(pen, height) {
    const { palette } = this.parts;
    const count = Math.max(2, Math.floor(this.width / 150));
    pen.fillStyle = palette.text;
    pen.textBaseline = "bottom";
    for (let i = 0; i <= count; i++) {
      const ms = this.from + ((this.to - this.from) * i) / count;
      pen.textAlign = i === 0 ? "left" : i === count ? "right" : "center";
      pen.fillText((this.span > DAY ? clock(ms) : time(ms)).replace(/:\d\d$/, ""), this.x(ms), height - 2);
    }
  }

  /** @param {CanvasRenderingContext2D} pen @param {number} height */
  readout(pen, height) {
    const data = /** @type {TrendData} */ (this.data);
    const i = this.cursor;
    const x = this.x(data.ms[i] + data.step_ms / 2);
    pen.fillStyle = this.parts.palette.strong;
    pen.fillRect(x, ALARMS, 1, height - ALARMS - FOOT);
    const number = (/** @type {number | null} */ v) => (v === null ? "–" : String(Math.round(v)));
    const near = this.alarms.filter((alarm) => alarm.ms >= data.ms[i] && alarm.ms < data.ms[i] + data.step_ms).map((alarm) => kindName(alarm.kind));
    const af = data.af[i];
    put(this.said, [clock(data.ms[i]), T.trendAt(number(data.hr[i]), number(data.hr_min[i]), number(data.hr_max[i]), number(data.pvc[i]), af === null ? "–" : `${Math.round(af * 100)} %`),
      ...new Set(near)].join(" · "));
  }
}
