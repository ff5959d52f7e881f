// Full disclosure: a day as lines of a minute, what happened marked on them, a click opens the strip.
// @ts-check
import { part, query } from "./api.js";
import { Calipers } from "./calipers.js";
import { h, put } from "./dom.js";
import { failure, select } from "./forms.js";
import { clock, kindName, kindShort, time } from "./format.js";
import { HeldBeat } from "./heldbeat.js";
import { recorded } from "./held.js";
import { Strip } from "./strip.js";
import { T } from "./texts.js";
import { ECTOPIC } from "./vocabulary.js";
import { View } from "./view.js";
import { level } from "./ward.js";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const LINE = 26;
const STRIP_MS = 15_000;
const LABEL = 54;
const FORMATS = ["wfdb", "edf", "csv", "png"];
const HEIGHT_UV = 2500;

export class Disclosure extends View {
  /** @param {string} patient @param {import("./view.js").Parts} parts */
  constructor(patient, parts) {
    super(parts, `${T.disclosure} · ${parts.stays.bed(patient)}`);
    this.patient = patient;
    this.hours = 1;
    this.from = 0;
    /** @type {any} */
    this.data = null;
    this.head = h("h1");
    this.said = h("p", { class: "note", role: "status" });
    this.canvas = h("canvas", { class: "lines", tabindex: "0", role: "img", "aria-label": T.disclosure });
    this.cursor = { line: 0, share: 0.5 };
    this.place = h("div", { class: "held-place" });
    this.events = h("div", { class: "event-list", role: "list", "aria-label": T.events }, h("p", { class: "none", role: "listitem" }, T.loadingOne));
    this.when = h("input", { class: "field", type: "datetime-local", "aria-label": T.beginAt });
    this.when.addEventListener("change", () => this.go(new Date(this.when.value).getTime()));
    const spans = select([["1", "1 h"], ["4", "4 h"], ["12", "12 h"], ["24", "24 h"]], "1");
    spans.className = "field";
    spans.setAttribute("aria-label", T.trendSpan);
    spans.addEventListener("change", () => {
      this.hours = Number(spans.value);
      this.go(this.from);
    });
    this.links = h("div", { class: "row" });
    this.root = h("div", { class: "page disclosure" },
      h("div", { class: "row" }, this.head, h("span", { class: "grow" }),
        h("a", { class: "plain button", href: `/patient/${encodeURIComponent(patient)}` }, T.patient)),
      h("div", { class: "row" }, h("button", { class: "plain", type: "button", onclick: () => this.go(this.from - this.hours * HOUR) }, `← ${T.earlier}`), this.when, spans,
        h("button", { class: "plain", type: "button", onclick: () => this.go(this.from + this.hours * HOUR) }, `${T.later} →`), this.links, this.said),
      this.place, h("div", { class: "disclosure-grid" }, h("div", { class: "card" }, this.canvas), h("section", { class: "card pad" }, h("h2", {}, T.events), this.events)));
    this.canvas.addEventListener("click", (event) => {
      const line = Math.floor(event.offsetY / LINE);
      this.openAt(this.moment(line, (event.offsetX - LABEL) / (this.canvas.clientWidth - LABEL)));
    });
    this.canvas.addEventListener("keydown", (event) => this.move(event));
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.canvas);
    parts.link.watch([], null);
    this.on(parts.stays, "change", () => this.who());
    this.who();
    this.start();
  }

  who() {
    const { stays } = this.parts;
    put(this.head, `${T.disclosure}: ${[stays.bed(this.patient), stays.person(this.patient)].filter(Boolean).join(", ")}`);
  }

  close() {
    super.close();
    this.observer.disconnect();
  }

  /** Begin with the last recorded hour, or with the begin of a younger recording. */
  async start() {
    try {
      const span = await this.parts.api.get(`/api/patients/${part(this.patient)}/recorded`);
      if (!this.open) return;
      if (span.to_ms === null) put(this.said, T.notRecorded);
      const now = this.parts.ward.now();
      const last = span.to_ms !== null && span.to_ms < now ? span.to_ms - HOUR : now - HOUR + MINUTE;
      await this.go(Math.max(last, span.from_ms ?? last));
    } catch (error) {
      this.place.replaceChildren(failure(error));
    }
  }

  /** @param {number} from ms */
  async go(from) {
    if (!Number.isFinite(from)) return;
    this.from = Math.floor(from / MINUTE) * MINUTE;
    const local = new Date(this.from - new Date(this.from).getTimezoneOffset() * MINUTE);
    this.when.value = local.toISOString().slice(0, 16);
    const [to, width] = [this.from + this.hours * HOUR, Math.max(200, Math.min(1600, Math.round(this.canvas.clientWidth - LABEL) || 900))];
    put(this.said, T.loadingOne);
    this.exports(this.from, to);
    try {
      this.data = await this.parts.api.get(`/api/patients/${part(this.patient)}/disclosure${query({ from: this.from, to, width })}`);
      if (!this.open) return;
      put(this.said, this.data.lines.length ? (this.data.left_out ? T.leftOut(this.data.left_out) : "") : T.notRecorded);
      this.list();
      this.draw();
    } catch (error) {
      put(this.said, error instanceof Error ? error.message : String(error));
    }
  }

  /** @param {number} from @param {number} to */
  exports(from, to) {
    const base = `/api/patients/${part(this.patient)}`;
    const range = (/** @type {string} */ format) => query({ from, to: format === "png" ? Math.min(to, from + 2 * MINUTE) : format === "csv" ? Math.min(to, from + HOUR) : to, format });
    this.links.replaceChildren(
      ...(this.may("monitor") ? FORMATS.map((format) => h("a", { class: "plain button", download: "", href: `${base}/export${range(format)}` }, format.toUpperCase())) : []),
      h("a", { class: "plain button", download: "", href: `${base}/report.pdf${query({ from, to })}` }, T.reportPdf));
  }

  list() {
    const happened = this.data.events.filter((/** @type {any} */ one) => one.type !== "beat");
    this.events.replaceChildren(...(happened.length ? happened.map((/** @type {any} */ one) =>
      h("div", { role: "listitem" }, h("button", { class: "queued", type: "button", "data-level": one.type === "alarm" ? level(one) : "technical", onclick: () => this.openAt(one.ms) },
        h("b", {}, time(one.ms)), h("span", {}, one.type === "alarm" ? kindName(one.kind) : T.rhythmOf(one.code.replace("(", "")))))) : [h("p", { class: "none", role: "listitem" }, T.nothingHappened)]));
  }

  /** @param {number} line @param {number} share */
  moment(line, share) {
    return this.from + line * MINUTE + Math.max(0, Math.min(1, share)) * MINUTE;
  }

  /** Open the strip round a moment. @param {number} ms */
  async openAt(ms) {
    try {
      const data = await recorded(this.patient, ms - STRIP_MS / 2, ms + STRIP_MS / 2, this.parts);
      if (!this.open) return;
      const beat = new HeldBeat(data, this.parts, this.patient);
      this.strip = new Strip(data, this.parts.palette, { speed: this.parts.prefs.speed, gain: this.parts.prefs.gain }, 210);
      this.strip.onbeat = (one) => beat.show(one);
      const exported = query({ from: Math.round(ms - STRIP_MS / 2), to: Math.round(ms + STRIP_MS / 2), format: "png" });
      this.place.replaceChildren(h("section", { class: "card strip-card", "aria-label": T.strip }, h("div", { class: "held-head" }, h("b", {}, clock(data.from_ms)), h("span", { class: "note" }, data.lead),
        h("span", { class: "grow" }), this.may("monitor") ? h("a", { class: "plain button", download: "", href: `/api/patients/${part(this.patient)}/export${exported}` }, "PNG") : null,
        h("button", { class: "plain", type: "button", onclick: () => this.place.replaceChildren() }, T.close)),
      this.strip.root, new Calipers(this.strip).tools), beat.root);
    } catch (error) {
      this.place.replaceChildren(failure(error));
    }
  }

  /** @param {KeyboardEvent} event */
  move(event) {
    const { cursor } = this;
    if (event.key === "Enter") this.openAt(this.moment(cursor.line, cursor.share));
    else if (event.key === "ArrowDown") cursor.line = Math.min(this.hours * 60 - 1, cursor.line + 1);
    else if (event.key === "ArrowUp") cursor.line = Math.max(0, cursor.line - 1);
    else if (event.key === "ArrowLeft") cursor.share = Math.max(0, cursor.share - 1 / 12);
    else if (event.key === "ArrowRight") cursor.share = Math.min(1, cursor.share + 1 / 12);
    else return;
    event.preventDefault();
    event.stopPropagation();
    this.draw();
    put(this.said, time(this.moment(cursor.line, cursor.share)));
  }

  draw() {
    const { canvas, data } = this;
    const lines = this.hours * 60;
    canvas.style.height = `${lines * LINE}px`;
    const width = canvas.clientWidth;
    if (!width) return;
    const ratio = lines > 300 ? 1 : Math.min(2, devicePixelRatio || 1);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(lines * LINE * ratio);
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.scale(ratio, ratio);
    const { palette } = this.parts;
    pen.font = "500 12px Inter, sans-serif";
    pen.textBaseline = "middle";
    for (let i = 0; i < lines; i++) {
      if (i % 2) {
        pen.fillStyle = palette.fine;
        pen.fillRect(0, i * LINE, width, LINE);
      }
      pen.fillStyle = palette.text;
      pen.fillText(time(this.from + i * MINUTE).slice(0, 5), 6, (i + 0.5) * LINE);
    }
    const room = width - LABEL;
    for (const line of data?.lines ?? []) this.line(pen, line, room);
    this.marks(pen, room);
    if (document.activeElement === canvas) {
      pen.strokeStyle = palette.accent;
      pen.lineWidth = 2;
      pen.strokeRect(LABEL + this.cursor.share * room - 6, this.cursor.line * LINE + 1, 12, LINE - 2);
    }
  }

  /** @param {CanvasRenderingContext2D} pen @param {{ms: number, min: (number | null)[], max: (number | null)[]}} line @param {number} room */
  line(pen, line, room) {
    const row = Math.round((line.ms - this.from) / MINUTE);
    const known = line.max.filter((v) => v !== null).sort((a, b) => a - b);
    const middle = known.length ? known[known.length >> 1] : 0;
    const [top, scale] = [row * LINE, LINE / HEIGHT_UV];
    const y = (/** @type {number} */ v) => Math.max(top, Math.min(top + LINE - 1, top + LINE * 0.6 - (v - middle) * scale));
    pen.fillStyle = this.parts.palette.trace;
    const step = room / line.min.length;
    for (let i = 0; i < line.min.length; i++) {
      const [low, high] = [line.min[i], line.max[i]];
      if (low === null || high === null) continue;
      pen.fillRect(LABEL + i * step, y(high), Math.max(1, step), Math.max(1, y(low) - y(high)));
    }
  }

  /** @param {CanvasRenderingContext2D} pen @param {number} room */
  marks(pen, room) {
    const { palette } = this.parts;
    // A name is left out where it would lie on another; the list beside has all.
    let [named, until] = [-1, 0];
    for (const one of this.data?.events ?? []) {
      const row = Math.floor((one.ms - this.from) / MINUTE);
      const x = LABEL + (((one.ms - this.from) % MINUTE) / MINUTE) * room;
      if (one.type === "beat") {
        if (!ECTOPIC.has(one.code)) continue;
        pen.fillStyle = palette.beats[one.code];
        pen.fillRect(x - 1, row * LINE, 3, 5);
      } else if (one.type === "alarm") {
        pen.fillStyle = palette.levels[level(one)];
        pen.fillRect(x - 1, row * LINE, 2, LINE);
        const text = kindShort(one.kind);
        if ((named === row && x < until) || x + pen.measureText(text).width > LABEL + room) continue;
        const wide = pen.measureText(text).width;
        pen.fillStyle = row % 2 ? palette.fine : palette.ground[""];
        pen.fillRect(x + 2, row * LINE + LINE - 14, wide + 4, 14);
        pen.fillStyle = palette.levels[level(one)];
        pen.fillText(text, x + 4, row * LINE + LINE - 6);
        [named, until] = [row, x + 10 + wide];
      }
    }
  }

  recolour() {
    this.draw();
    this.strip?.draw();
  }
}
