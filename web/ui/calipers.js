// Two handles on a strip that stands still: the time between them, the rate, and QT with its correction.
// @ts-check
import { h, mark, put } from "./dom.js";
import { T } from "./texts.js";

const FINE_MS = 4;
const COARSE_MS = 40;

/** QT corrected after Bazett, ms. @param {number} qt ms @param {number} rr ms */
export const bazett = (qt, rr) => qt / Math.sqrt(rr / 1000);

export class Calipers {
  /** @param {import("./strip.js").Strip} strip */
  constructor(strip) {
    this.strip = strip;
    this.said = h("output", { class: "calipers-said" });
    /** @type {"rr" | "qt"} */
    this.kind = "rr";
    const middle = Math.min(strip.seconds * 500, 3000);
    const half = Math.min(400, strip.seconds * 250);
    this.at = [middle - half, middle + half].map((ms) => strip.data.from_ms + ms);
    this.snap();
    this.handles = [0, 1].map((i) => this.handle(i));
    this.span = h("div", { class: "calipers-span" });
    const kinds = /** @type {const} */ (["rr", "qt"]);
    this.buttons = kinds.map((kind) => h("button", { type: "button", onclick: () => {
      this.kind = kind;
      this.show();
    } }, kind === "rr" ? T.caliperRr : T.caliperQt));
    this.tools = h("div", { class: "row calipers-tools" }, h("div", { class: "seg", role: "group", "aria-label": T.calipers }, ...this.buttons), this.said,
      h("span", { class: "note" }, T.caliperHelp));
    strip.inner.append(this.span, ...this.handles);
    this.show();
  }

  /** Begin at two neighbouring beats where there are some. */
  snap() {
    const { beats } = this.strip.data;
    const first = beats.findIndex((beat) => beat.ms >= this.at[0]);
    if (first >= 0 && beats[first + 1]) this.at = [beats[first].ms, beats[first + 1].ms];
  }

  /** @param {number} i */
  handle(i) {
    const handle = h("div", { class: "caliper", role: "slider", tabindex: "0", "aria-label": i ? T.caliperEnd : T.caliperStart,
      "aria-valuemin": "0", "aria-valuemax": String(Math.round(this.strip.seconds * 1000)) });
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      event.preventDefault();
      handle.focus();
    });
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      this.move(i, this.strip.ms(event.clientX - this.strip.inner.getBoundingClientRect().left));
    });
    handle.addEventListener("keydown", (event) => {
      const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      this.move(i, this.at[i] + by * (event.shiftKey ? COARSE_MS : FINE_MS));
    });
    return handle;
  }

  /** @param {number} i @param {number} ms */
  move(i, ms) {
    const { from_ms: from } = this.strip.data;
    this.at[i] = Math.max(from, Math.min(from + this.strip.seconds * 1000, ms));
    this.show();
  }

  /** What lies between the handles, ms. */
  get between() {
    return Math.round(Math.abs(this.at[1] - this.at[0]));
  }

  show() {
    const { strip } = this;
    this.handles.forEach((handle, i) => {
      handle.style.left = `${strip.x(this.at[i])}px`;
      const ms = Math.round(this.at[i] - strip.data.from_ms);
      mark(handle, "aria-valuenow", String(ms));
      mark(handle, "aria-valuetext", `${ms} ms`);
    });
    const left = strip.x(Math.min(...this.at));
    this.span.style.left = `${left}px`;
    this.span.style.width = `${strip.x(Math.max(...this.at)) - left}px`;
    this.buttons.forEach((button, i) => mark(button, "aria-pressed", String((this.kind === "qt") === Boolean(i))));
    const gap = this.between;
    if (this.kind === "rr") put(this.said, gap ? T.caliperRate(gap, Math.round(60_000 / gap)) : T.caliperNone);
    else {
      const rr = strip.nearest(Math.min(...this.at))?.rr_ms;
      put(this.said, rr ? T.caliperQtc(gap, Math.round(bazett(gap, rr)), rr) : T.caliperQtOnly(gap));
    }
  }
}
