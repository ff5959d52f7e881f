// Limits and kinds of alarms of one patient, beside the trend that they cut.
// @ts-check
import { part, query } from "./api.js";
import { h, mark, put } from "./dom.js";
import { failure, ask, field, select } from "./forms.js";
import { clock, kindName } from "./format.js";
import { T } from "./texts.js";
import { LIMITS, PROFILES } from "./vocabulary.js";

const PREVIEW_MS = 350;
/** Limits that are lines of the trend of the rate. */
const RATES = ["extreme_brady", "brady", "tachy", "extreme_tachy"];

/**
 * @typedef {{profile: string, values: Record<string, number | boolean>, off: string[], defaults: Record<string, number | boolean>,
 *   ranges: Record<string, [number, number]>, profiles: string[], changed_by: string, changed_ms: number | null,
 *   kinds: {kind: string, priority: number, lethal: boolean, technical: boolean, on: boolean, limits: string[]}[]}} Shown
 */

export class LimitsPanel {
  /**
   * @param {string} patient @param {import("./view.js").Parts} parts @param {boolean} may whether the user may change them
   * @param {(limits: {value: number, text: string}[]) => void} lines told the rates to draw across the trend
   */
  constructor(patient, parts, may, lines) {
    this.patient = patient;
    this.parts = parts;
    this.may = may;
    this.lines = lines;
    /** What the user wants changed. @type {Record<string, number | boolean>} */
    this.wanted = {};
    this.body = h("div", { class: "limits-body" });
    this.said = h("p", { class: "note", role: "status" });
    this.root = h("section", { class: "card pad limits" }, h("h2", {}, T.limits), this.body, this.said);
    this.load();
  }

  async load() {
    try {
      /** @type {Shown} */
      this.shown = await this.parts.api.get(`/api/patients/${part(this.patient)}/limits`);
      this.wanted = {};
      this.draw();
    } catch (error) {
      this.body.replaceChildren(failure(error));
    }
  }

  /** Value that is wanted, else that in force. @param {string} name */
  value(name) {
    return this.wanted[name] ?? this.shown?.values[name];
  }

  draw() {
    const shown = this.shown;
    if (!shown) return;
    const profile = select(shown.profiles.map((name) => [name, PROFILES[name] ?? name]), shown.profile);
    profile.disabled = !this.may;
    profile.addEventListener("change", () => this.profile(profile));
    /** @type {Set<string>} */
    const seen = new Set();
    const rows = shown.kinds.map((kind) => {
      const names = kind.limits.filter((name) => LIMITS[name] && !seen.has(name));
      for (const name of names) seen.add(name);
      return h("fieldset", { class: "limit", "data-kind": kind.kind, "data-off": kind.on ? null : "" }, h("legend", { class: "unseen" }, kindName(kind.kind)),
        this.toggle(kind), ...names.map((name) => this.entry(name)));
    });
    this.save = h("button", { class: "act", type: "button", disabled: true, onclick: () => this.send() }, T.saveLimits);
    this.body.replaceChildren(field(T.profile, profile),
      h("p", { class: "note" }, shown.changed_ms ? T.changedBy(shown.changed_by || T.theSystem, clock(shown.changed_ms)) : T.unchanged),
      h("div", { class: "limit-list", tabindex: "0", role: "region", "aria-label": T.limits }, ...rows), this.may ? this.save : h("p", { class: "note" }, T.needsClinician));
    this.told();
  }

  told() {
    this.lines(RATES.map((name) => ({ value: Number(this.value(name)), text: String(this.value(name)) })).filter((one) => Number.isFinite(one.value)));
    if (this.save) this.save.disabled = !Object.keys(this.wanted).length;
  }

  /** @param {Shown["kinds"][number]} kind */
  toggle(kind) {
    const box = h("input", { type: "checkbox", id: `on-${kind.kind}`, checked: kind.on, disabled: !this.may });
    box.addEventListener("change", () => {
      if (box.checked === kind.on) delete this.wanted[kind.kind];
      else this.wanted[kind.kind] = box.checked;
      this.told();
    });
    return h("label", { class: "toggle", for: box.id }, box, kindName(kind.kind), kind.lethal ? h("span", { class: "lethal" }, T.lethal) : null);
  }

  /** @param {string} name */
  entry(name) {
    const shown = /** @type {Shown} */ (this.shown);
    const { text, unit } = LIMITS[name];
    const now = shown.values[name];
    if (typeof now === "boolean") {
      const box = h("input", { type: "checkbox", id: `limit-${name}`, checked: now, disabled: !this.may });
      box.addEventListener("change", () => this.want(name, box.checked, now));
      return h("label", { class: "toggle minor", for: box.id }, box, text);
    }
    const [low, high] = shown.ranges[name] ?? [0, 1000];
    const input = h("input", { type: "number", id: `limit-${name}`, min: String(low), max: String(high), step: Number.isInteger(now) && high > 20 ? "1" : "any", value: String(now), disabled: !this.may });
    const count = h("small", { class: "count", role: "status" });
    const usual = shown.defaults[name] === now ? "" : T.usual(String(shown.defaults[name]));
    put(count, usual);
    let timer = 0;
    input.addEventListener("input", () => {
      const value = input.valueAsNumber;
      mark(input, "aria-invalid", input.checkValidity() ? null : "true");
      if (!input.checkValidity() || Number.isNaN(value)) {
        put(count, T.between(low, high));
        delete this.wanted[name];
        this.told();
        return;
      }
      this.want(name, value, now);
      clearTimeout(timer);
      timer = window.setTimeout(() => this.preview(name, value, count), PREVIEW_MS);
    });
    return h("div", { class: "entry" }, h("label", { for: input.id }, text), input, h("span", { class: "unit" }, unit), count);
  }

  /** @param {string} name @param {number | boolean} value @param {number | boolean} now */
  want(name, value, now) {
    if (value === now) delete this.wanted[name];
    else this.wanted[name] = value;
    this.told();
  }

  /** How often a limit would have sounded. @param {string} name @param {number} value @param {HTMLElement} place */
  async preview(name, value, place) {
    try {
      const { count } = await this.parts.api.get(`/api/patients/${part(this.patient)}/limits/preview${query({ name, value, hours: 24 })}`);
      put(place, count === null ? "" : T.wouldSound(count));
    } catch {
      put(place, T.noPreview);
    }
  }

  async send() {
    const { api, stays } = this.parts;
    const lethal = (this.shown?.kinds ?? []).filter((kind) => kind.lethal && this.wanted[kind.kind] === false).map((kind) => kindName(kind.kind));
    const act = () => api.put(`/api/patients/${part(this.patient)}/limits`, { values: this.wanted });
    if (lethal.length) {
      const who = [stays.bed(this.patient), stays.person(this.patient)].filter(Boolean).join(", ");
      if (!await ask({ title: T.lethalOffTitle(lethal.join(", "), who), body: [h("p", {}, T.lethalOffLoses(lethal.join(", ")))], submit: T.switchOff, danger: true, act })) return;
    } else {
      try {
        await act();
      } catch (error) {
        put(this.said, error instanceof Error ? error.message : String(error));
        return;
      }
    }
    put(this.said, T.sentWaits);
  }

  /** @param {HTMLSelectElement} list */
  async profile(list) {
    const who = [this.parts.stays.bed(this.patient), this.parts.stays.person(this.patient)].filter(Boolean).join(", ");
    const done = await ask({ title: T.profileTitle(PROFILES[list.value] ?? list.value, who), body: [h("p", {}, T.profileLoses)], submit: T.setProfile,
      act: () => this.parts.api.put(`/api/patients/${part(this.patient)}/limits`, { profile: list.value }) });
    if (!done) list.value = this.shown?.profile ?? "";
    else put(this.said, T.sentWaits);
  }

  /** The stream says what is in force now. */
  settled() {
    put(this.said, "");
    this.load();
  }
}
