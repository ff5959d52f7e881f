// Classify a file: a spectral image of a beat or a recording, given by a person.
// @ts-check
import { BEATS, RHYTHMS, T } from "./texts.js";
import { beatName, drawMap, percent } from "./chosen.js";
import { h } from "./dom.js";

const MOST_ROWS = 500;

/** @param {string} text base64 */
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

export class Files {
  /** @param {import("./acts.js").Acts} acts @param {import("./sweep.js").Palette} palette */
  constructor(acts, palette) {
    this.acts = acts;
    this.palette = palette;
    this.input = h("input", { type: "file", id: "file", required: true, accept: ".png,.jpg,.jpeg,.edf,.csv,.tsv,.txt,.json,.jsonl" });
    this.button = h("button", { class: "plain", type: "submit" }, T.classify);
    this.result = h("section", { class: "card file-result", "aria-live": "polite" }, h("p", { class: "none" }, T.fileHelp));
    const form = h("form", { class: "list-head" }, h("h1", {}, T.classifyFile), this.input, this.button);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.root = h("div", { class: "list files" }, form, this.result);
  }

  close() {}
  frame() {}
  tick() {}
  recolour() {}

  async send() {
    const file = this.input.files?.[0];
    if (!file) return;
    this.button.disabled = true;
    this.result.replaceChildren(h("p", { class: "none" }, T.classifying));
    try {
      const answer = await fetch("/api/classify", { method: "POST", body: file,
        headers: { "X-CSRF-Token": this.acts.csrf, "X-File-Name": encodeURIComponent(file.name) } });
      if (answer.status === 401) location.assign("/login");
      const result = await answer.json();
      this.result.replaceChildren(...(answer.ok ? this.show(result) : [h("p", { class: "refused", role: "alert" }, result.detail)]));
    } catch {
      this.result.replaceChildren(h("p", { class: "refused", role: "alert" }, T.fileFailed));
    }
    this.button.disabled = false;
  }

  /** @param {any} result */
  show(result) {
    return result.kind === "image" ? this.image(result) : this.recording(result);
  }

  /** @param {any} result */
  image(result) {
    const canvas = h("canvas", { class: "map" });
    drawMap(canvas, this.palette, (c) => result.picture.map((/** @type {number[]} */ row) => row[c]), bytes(result.map));
    const rows = Object.entries(result.probabilities).sort((a, b) => b[1] - a[1]);
    return [h("h2", {}, `${beatName(result.class)}, ${percent(result.p)}`), canvas,
      h("p", { class: "note" }, T.mapOf(beatName(result.class), beatName(result.second), result.image_share)),
      ...result.warnings.map((/** @type {string} */ text) => h("p", { class: "refused" }, text)),
      h("table", {}, h("tbody", {}, ...rows.map(([code, p]) => h("tr", {}, h("td", {}, beatName(code)), h("td", { class: "num" }, percent(p))))))];
  }

  /** @param {any} result */
  recording(result) {
    const counts = Object.entries(result.summary).map(([name, n]) => `${BEATS[name]?.name ?? name}: ${n}`).join(" · ");
    const cells = (/** @type {any} */ beat) => [beat.seconds.toFixed(2), beat.study ?? beatName(beat.class), percent(beat.p), beatName(beat.second),
      beat.rr_ms ? `${beat.rr_ms} ms` : "–", RHYTHMS[beat.rhythm] ?? beat.rhythm];
    return [h("h2", {}, `${result.seconds} s, ${result.lead}`), h("p", {}, counts || T.noBeats),
      ...result.alarms.map((/** @type {any} */ alarm) => h("p", {}, `${alarm.onset_s.toFixed(1)} s · ${alarm.kind} · ${alarm.detail}`)),
      result.beats.length > MOST_ROWS ? h("p", { class: "note" }, T.firstRows(MOST_ROWS)) : h("span"),
      h("table", {}, h("thead", {}, h("tr", {}, ...["s", T.class, T.sure, T.second, T.rr, T.rhythm].map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, ...result.beats.slice(0, MOST_ROWS).map((/** @type {any} */ beat) => h("tr", {}, ...cells(beat).map((text) => h("td", {}, text))))))];
  }
}
