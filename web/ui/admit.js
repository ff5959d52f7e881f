// Patients and devices: who lies where, and the acts of admission.
// @ts-check
import { admit, discharge, transfer } from "./care.js";
import { h, put } from "./dom.js";
import { table } from "./forms.js";
import { clock, natural } from "./format.js";
import { T } from "./texts.js";
import { PROFILES, PURPOSES } from "./vocabulary.js";
import { View } from "./view.js";

export class Admit extends View {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.admit);
    this.said = h("p", { class: "note", role: "status" });
    this.body = h("div", { class: "card pad stays" });
    this.root = h("div", { class: "page" }, h("div", { class: "row" }, h("h1", {}, T.admitPage), this.said), this.body);
    this.on(parts.stays, "change", () => this.draw());
    parts.link.watch([], null);
    parts.stays.load();
    this.draw();
  }

  draw() {
    const { parts } = this;
    const { stays } = parts;
    const rows = [...stays.by.values()].sort((a, b) => natural(stays.label(a.patient), stays.label(b.patient)));
    put(this.said, T.vacantCount(rows.filter((row) => !row.person).length));
    this.body.replaceChildren(table([T.colBed, T.patient, T.wardName, T.device, T.profile, T.consent, T.admittedSince, T.notes, ""], rows.map((row) => [
      h("a", { class: "bed", href: `/patient/${encodeURIComponent(row.patient)}` }, stays.bed(row.patient)),
      row.person ? (row.name ?? "") : h("i", {}, T.noPatient), row.ward || "–", row.device, row.profile ? (PROFILES[row.profile] ?? row.profile) : "–",
      Array.isArray(row.consent) && row.consent.length ? row.consent.map((purpose) => PURPOSES[purpose] ?? purpose).join(", ") : "–", row.since_ms ? clock(row.since_ms) : "–", String(row.notes_count),
      this.acts(row)]), T.emptyWall));
  }

  /** @param {import("./stays.js").Stay} row */
  acts(row) {
    if (!this.may("clinician")) return h("span");
    const { parts } = this;
    const button = (/** @type {string} */ text, /** @type {typeof admit} */ act) =>
      h("button", { class: "plain", type: "button", "aria-label": `${text}: ${parts.stays.bed(row.patient)} ${row.name ?? ""}`, onclick: () => act(row.patient, parts) }, text);
    return h("div", { class: "row" }, ...(row.person ? [button(T.transferDo, transfer), button(T.dischargeDo, discharge)] : [button(T.admitDo, admit)]));
  }
}
