// A beat of a strip that stands still: class, second best, probability, RR, heat map, and a label by a person.
// @ts-check
import { part } from "./api.js";
import { beatName, drawMap, percent } from "./chosen.js";
import { h, put } from "./dom.js";
import { clock } from "./format.js";
import { T } from "./texts.js";
import { BEATS } from "./vocabulary.js";

/** Columns of a beat's spectral image before its R peak, as in the server. */
const BEFORE = 30;

/** Bytes of base64. @param {string} text */
export const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

export class HeldBeat {
  /**
   * @param {import("./strip.js").StripData} data
   * @param {import("./view.js").Parts} parts
   * @param {string | null} patient whose beats may be labelled; null where they may not
   */
  constructor(data, parts, patient) {
    this.data = data;
    this.parts = parts;
    this.patient = patient;
    this.root = h("section", { class: "card chosen", "aria-live": "polite" }, h("p", { class: "none" }, T.chooseBeat));
  }

  /** Column of the spectrogram for column `c` of a beat's image. @param {import("./strip.js").StripBeat} beat @param {number} c */
  column(beat, c) {
    const columns = this.data.columns;
    if (!columns) return null;
    const at = Math.round((beat.ms - columns.from_ms) / columns.column_ms) - BEFORE + c;
    const row = columns.data.subarray(at * columns.bins, (at + 1) * columns.bins);
    return at >= 0 && row.length === columns.bins ? row : null;
  }

  /** @param {import("./strip.js").StripBeat} beat */
  show(beat) {
    const { palette } = this.parts;
    const letter = h("b", { class: "cls" }, BEATS[beat.code]?.letter ?? beat.code);
    letter.style.color = palette.beats[beat.code] ?? "";
    const map = typeof beat.map === "string" ? (beat.map ? bytes(beat.map) : null) : beat.map?.length ? beat.map : null;
    const facts = [[T.second, beat.second ? `${beatName(beat.second)}, ${percent(beat.second_p)}` : "–"],
      [T.rr, beat.rr_ms ? `${beat.rr_ms} ms` : "–"], [T.time, clock(beat.ms)]];
    /** @type {Node[]} */
    const picture = [];
    if (this.data.columns) {
      const canvas = h("canvas", { class: "map", role: "img", "aria-label": T.mapName });
      const whole = drawMap(canvas, palette, (c) => this.column(beat, c), map);
      const text = map ? T.mapOf(beatName(beat.code), beatName(beat.second), map[0]) : T.mapNone;
      picture.push(canvas, h("p", { class: "note" }, `${text}${whole ? "" : ` ${T.mapGone}`}`));
    }
    this.root.replaceChildren(
      h("div", { class: "chosen-head" }, letter, h("b", {}, beatName(beat.code)), h("span", { class: "num" }, percent(beat.p))),
      ...picture,
      h("dl", { class: "chosen-facts" }, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
      ...this.labels(beat));
    this.root.dataset.code = beat.code;
    this.root.dataset.sample = String(beat.sample);
  }

  /** Give the beat another class. @param {import("./strip.js").StripBeat} beat @returns {Node[]} */
  labels(beat) {
    const { patient, parts } = this;
    if (patient === null || beat.epoch === undefined || !["clinician", "admin"].includes(parts.session.role)) return [];
    const said = h("p", { class: "note", role: "status" });
    const send = async (/** @type {string} */ code) => {
      try {
        await parts.api.post(`/api/patients/${part(patient)}/beats/label`, { epoch: beat.epoch, sample: beat.sample, code });
        put(said, T.labelled(code === "|" ? T.artefact : beatName(code)));
      } catch (error) {
        put(said, error instanceof Error ? error.message : String(error));
      }
    };
    const buttons = [...Object.entries(BEATS).map(([code, { letter, name }]) => [code, letter, name]), ["|", "×", T.artefact]].map(([code, letter, name]) =>
      h("button", { class: "plain icon", type: "button", title: name, "aria-label": T.labelAs(name), onclick: () => send(code) }, letter));
    return [h("div", { class: "row labels", role: "group", "aria-label": T.relabel }, h("span", { class: "note" }, T.relabel), ...buttons), said];
  }
}
