// What is kept and for how long, persons' access and erasure, and the trail of all acts.
// @ts-check
import { part, query } from "./api.js";
import { h, put } from "./dom.js";
import { field, table } from "./forms.js";
import { clock } from "./format.js";
import { Section } from "./section.js";
import { T } from "./texts.js";
import { ACTS, KEPT } from "./vocabulary.js";

export class Retention extends Section {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.retention, "/api/retention");
  }

  /** @param {Record<string, number>} days */
  show(days) {
    const inputs = Object.entries(days).map(([name, value]) => /** @type {const} */ ([name, h("input", { type: "number", min: "1", value: String(value), required: true })]));
    return [h("p", { class: "note" }, T.retentionSays), this.form(inputs.map(([name, input]) => field(KEPT[name] ?? name, input, T.daysUnit)), T.keepIt,
      () => this.parts.api.put("/api/retention", Object.fromEntries(inputs.map(([name, input]) => [name, input.valueAsNumber]))))];
  }
}

export class Persons extends Section {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.persons, "/api/persons");
  }

  /** @param {any[]} persons */
  show(persons) {
    const { api } = this.parts;
    return [table([T.patientName, T.mrn, T.born, ""], persons.map((person) => [person.name || "–", person.mrn || "–", person.born || "–", h("div", { class: "row" },
      h("a", { class: "plain button", download: "", href: `/api/persons/${part(person.person)}/access.zip`, "aria-label": `${T.access}: ${person.name}` }, T.access),
      this.button(T.erase, person.name, { title: T.eraseOf(person.name), loses: T.eraseLoses }, () => api.delete(`/api/persons/${part(person.person)}`)))]), T.noPersons)];
  }
}

/** One detail of an act; a moment as the other times of the page. @param {string} name @param {unknown} value */
function said(name, value) {
  if (name.endsWith("_ms") && typeof value === "number") return `${name.slice(0, -3)} ${clock(value)}`;
  return `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`;
}

export class TrailRows extends Section {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.trail, "/api/audit?limit=50");
    this.more = h("button", { class: "plain", type: "button", onclick: () => this.older() }, T.older);
    this.root.append(this.more);
  }

  /** @type {any[]} */
  rows = [];

  /** @param {{rows: any[], intact: boolean, broken: number | null}} told */
  show(told) {
    this.rows = told.rows;
    return this.draw(told);
  }

  /** @param {{intact: boolean, broken: number | null}} told */
  draw(told) {
    const state = told.intact ? h("p", { class: "intact" }, `✓ ${T.trailIntact}`) : h("p", { class: "refused", role: "alert" }, T.trailBroken(told.broken ?? 0));
    return [state, table([T.time, T.userName, T.act, T.subject, T.detail], this.rows.map((row) => [clock(row.ms), row.user || "–", ACTS[row.act] ?? row.act, row.subject,
      Object.entries(row.detail).map(([name, value]) => said(name, value)).join(", ")]), T.noTrail)];
  }

  async older() {
    const last = this.rows[this.rows.length - 1];
    const before = last?.seq;
    const told = await this.parts.api.get(`/api/audit${query({ before, limit: 50 })}`);
    this.more.disabled = !told.rows.length;
    if (!told.rows.length) put(this.more, T.noOlder);
    this.rows = [...this.rows, ...told.rows];
    this.body.replaceChildren(...this.draw(told));
  }
}
