// Classify a file: a spectral image of a beat or a recording, given by a person.
// @ts-check
import { leave } from "./leave.js";
import { T } from "./texts.js";
import { BEATS } from "./vocabulary.js";
import { beatName, drawMap, percent } from "./chosen.js";
import { h, put } from "./dom.js";
import { age, kindName, worded } from "./format.js";
import { View } from "./view.js";
import { drawReason, rhythmWord, showReason } from "./why.js";
import { W } from "./whytexts.js";

/** Rows of the table of beats; the chosen one is always among them. */
const ROWS = 100;

/** Columns of a beat's image, and of a window's: seconds and Hz of a cell, as in the server. */
const BINS = 24;
const COLUMN_S = 8 / 250;
const BIN_HZ = 250 / 128;

/** @param {string} text base64 */
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

export class Files extends View {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.files);
    this.palette = parts.palette;
    this.input = h("input", { type: "file", id: "file", required: true, "aria-label": T.files, accept: ".png,.jpg,.jpeg,.edf,.csv,.tsv,.txt,.json,.jsonl" });
    this.button = h("button", { class: "act", type: "submit" }, T.classify);
    this.result = h("section", { class: "card file-result", "aria-live": "polite" }, h("p", { class: "none" }, T.fileHelp));
    const form = h("form", { class: "list-head" }, h("h1", {}, T.classifyFile), this.input, this.button);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.root = h("div", { class: "list files" }, form, this.result);
    /** @type {any} */
    this.shown = null;
    this.at = 0;
  }

  async send() {
    const file = this.input.files?.[0];
    if (!file) return;
    this.button.disabled = true;
    this.shown = null;
    const said = h("p", { class: "none" }, T.classifying);
    const begun = Date.now();
    const clock = setInterval(() => put(said, T.classifyingFor(age(Date.now() - begun))), 1000);
    // Seconds are for the eye: a reader of the screen is told of the begin and of the result.
    this.result.replaceChildren(h("progress", { "aria-label": T.classifying }), h("div", { "aria-live": "off" }, said));
    try {
      const answer = await fetch("/api/classify", { method: "POST", body: file,
        headers: { "X-CSRF-Token": this.parts.api.csrf, "X-File-Name": encodeURIComponent(file.name) } });
      if (answer.status === 401) leave();
      const result = await answer.json();
      this.result.replaceChildren(...(answer.ok ? this.show(result) : [h("p", { class: "refused", role: "alert" }, result.detail)]));
    } catch {
      this.result.replaceChildren(h("p", { class: "refused", role: "alert" }, T.fileFailed));
    }
    clearInterval(clock);
    this.button.disabled = false;
  }

  recolour() {
    if (this.shown) this.result.replaceChildren(...this.show(this.shown));
  }

  /** ← and → step from beat to beat. @param {KeyboardEvent} event */
  key(event) {
    const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
    if (!by || this.shown?.kind !== "recording" || !this.shown.beats.length) return false;
    this.choose(this.at + by);
    return true;
  }

  /** @param {any} result @returns {HTMLElement[]} */
  show(result) {
    this.shown = result;
    if (result.kind === "image") return this.image(result);
    return result.kind === "window" ? this.window(result) : this.recording(result);
  }

  /** @param {any} result */
  image(result) {
    const canvas = h("canvas", { class: "map" });
    drawMap(canvas, this.palette, (c) => result.picture.map((/** @type {number[]} */ row) => row[c]), bytes(result.map));
    const rows = Object.entries(result.probabilities).sort((a, b) => b[1] - a[1]);
    const note = result.network
      ? `${W.ownNetwork(result.network)} ${W.speaks(beatName(result.class))} ${W.occluded}`
      : T.mapOf(beatName(result.class), beatName(result.second), result.image_share);
    return [h("h2", {}, `${result.study ?? beatName(result.class)}, ${percent(result.p)}`), canvas, h("p", { class: "note" }, note),
      ...result.warnings.map((/** @type {string} */ text) => h("p", { class: "refused" }, text)),
      h("table", {}, h("tbody", {}, ...rows.map(([code, p]) => h("tr", {}, h("td", {}, beatName(code)), h("td", { class: "num" }, percent(p))))))];
  }

  /** @param {any} result */
  window(result) {
    const canvas = h("canvas", { class: "map" });
    drawReason(canvas, this.palette, result.reason, result.picture, COLUMN_S, BIN_HZ);
    return [h("h2", {}, `${W.classic}: ${rhythmWord(result.class)}, ${percent(result.p)}`), canvas, ...showReason(result.reason, this.palette)];
  }

  /** @param {any} result */
  recording(result) {
    const counts = Object.entries(result.summary).map(([name, n]) => `${BEATS[name]?.name ?? name}: ${n}`).join(" · ");
    this.chosen = h("section", { class: "file-beat", "aria-live": "polite" });
    this.rows = h("tbody");
    const rhythms = result.rhythms.map((/** @type {any} */ one) => {
      const name = `${one.seconds.toFixed(1)} s · ${rhythmWord(one.code)}`;
      return one.reason ? h("details", { "data-rhythm": one.code }, h("summary", {}, name), ...showReason(one.reason, this.palette)) : h("p", {}, name);
    });
    const parts = [h("h2", {}, `${result.seconds} s, ${result.lead}`), h("p", {}, counts || T.noBeats),
      ...result.alarms.map((/** @type {any} */ alarm) => h("p", {}, `${alarm.onset_s.toFixed(1)} s · ${kindName(alarm.kind)} · ${worded(alarm.detail)}`)), this.chosen,
      h("table", { class: "file-beats" }, h("thead", {}, h("tr", {}, ...["s", T.class, T.sure, T.second, T.rr, T.rhythm].map((text) => h("th", { scope: "col" }, text)))), this.rows),
      h("h3", {}, W.rhythms), ...rhythms];
    this.choose(0);
    return parts;
  }

  /** Show a beat of the recording. @param {number} at */
  choose(at) {
    const { beats, pictured } = this.shown;
    if (!beats.length) return;
    this.at = Math.max(0, Math.min(beats.length - 1, at));
    const beat = beats[this.at];
    const canvas = h("canvas", { class: "map" });
    if (beat.picture) {
      const picture = bytes(beat.picture);
      drawMap(canvas, this.palette, (c) => picture.subarray(c * BINS, (c + 1) * BINS), bytes(beat.map));
    }
    const facts = [[T.second, `${beatName(beat.second)}, ${percent(beat.second_p)}`], [T.rr, beat.rr_ms ? `${beat.rr_ms} ms` : "–"], [T.rhythm, rhythmWord(beat.rhythm)]];
    this.chosen?.replaceChildren(
      h("div", { class: "chosen-head" }, h("b", {}, beat.study ?? beatName(beat.class)), h("span", { class: "num" }, percent(beat.p)), h("span", {}, `${beat.seconds.toFixed(2)} s · ${W.ofBeats(this.at + 1, beats.length)}`)),
      beat.picture ? canvas : h("p", { class: "note" }, W.noPicture(pictured)),
      h("p", { class: "note" }, `${T.mapOf(beatName(beat.class), beatName(beat.second), beat.image_share)} ${W.stepHint}`),
      h("dl", { class: "chosen-facts" }, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
    if (this.chosen) {
      this.chosen.dataset.beat = String(this.at);
      this.chosen.dataset.code = beat.class;
    }
    const first = Math.max(0, Math.min(beats.length - ROWS, this.at - ROWS / 2));
    const cells = (/** @type {any} */ one) => [one.seconds.toFixed(2), one.study ?? beatName(one.class), percent(one.p), beatName(one.second),
      one.rr_ms ? `${one.rr_ms} ms` : "–", rhythmWord(one.rhythm)];
    this.rows?.replaceChildren(...beats.slice(first, first + ROWS).map((/** @type {any} */ one, /** @type {number} */ i) =>
      h("tr", { "aria-selected": String(first + i === this.at), onclick: () => this.choose(first + i) }, ...cells(one).map((text) => h("td", {}, text)))));
  }
}
