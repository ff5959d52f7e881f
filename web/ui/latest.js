// The latest beats of a live trace, and how many there were of each class in the last minute.
// @ts-check
import { h } from "./dom.js";
import { clock } from "./format.js";
import { T } from "./texts.js";
import { BEATS } from "./vocabulary.js";

const ROWS = 14;

export class Latest {
  /**
   * @param {import("./trace.js").Trace} trace
   * @param {import("./palette.js").Palette} palette
   * @param {(beat: import("./trace.js").Beat) => void} choose
   */
  constructor(trace, palette, choose) {
    this.trace = trace;
    this.palette = palette;
    this.choose = choose;
    /** Sample of the newest beat drawn. */
    this.drawn = -1;
    this.rows = h("tbody");
    this.legend = h("div", { class: "legend" });
    const heads = [[T.time, ""], [T.class, ""], [T.sure, "num"], [T.second, ""], [T.rr, "num"]];
    this.root = h("section", { class: "card block latest" }, h("h2", {}, T.recentBeats),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": T.recentBeats },
        h("table", {}, h("thead", {}, h("tr", {}, ...heads.map(([text, kind]) => h("th", { class: kind || null, scope: "col" }, text)))), this.rows)));
  }

  tick() {
    const { beats } = this.trace;
    const last = beats.length ? beats[beats.length - 1].sample : 0;
    if (last === this.drawn) return;
    this.drawn = last;
    this.rows.replaceChildren(...beats.slice(-ROWS).reverse().map((beat) =>
      h("tr", { onclick: () => this.choose(beat) }, h("td", {}, clock(beat.ms)), this.cell(beat.code, true), h("td", { class: "num" }, `${Math.round(beat.p * 100)} %`),
        this.cell(beat.second, false), h("td", { class: "num" }, beat.rr_ms ? `${beat.rr_ms} ms` : "–"))));
    const counts = new Map();
    for (const beat of beats) counts.set(beat.code, (counts.get(beat.code) ?? 0) + 1);
    this.legend.replaceChildren(...Object.entries(BEATS).filter(([code]) => counts.has(code)).map(([code, { letter, name }]) => {
      const b = h("b", { class: "cls" }, letter);
      b.style.color = this.palette.beats[code];
      return h("span", {}, b, `${name} (${counts.get(code)})`);
    }));
  }

  /** @param {string} code @param {boolean} strong */
  cell(code, strong) {
    const beat = BEATS[code];
    const cell = h("td", { class: strong ? "cls" : null, title: beat?.name ?? code }, beat?.letter ?? code);
    if (strong) cell.style.color = this.palette.beats[code] ?? "";
    return cell;
  }
}
