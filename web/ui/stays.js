// Who lies where: persons, beds and wards joined to channels, as the server last told.
// @ts-check

import { T } from "./texts.js";

const AGAIN_MS = 20_000;
const SOON_MS = 300;

/** @typedef {{patient: string, device: string, bed: string | null, ward: string | null, person: string | null, name: string | null,
 *   profile: string | null, since_ms: number | null, consent: string[] | Record<string, boolean> | null, notes_count: number}} Stay */

export class Stays extends EventTarget {
  /** @param {import("./api.js").Api} api @param {import("./ward.js").Ward} ward */
  constructor(api, ward) {
    super();
    this.api = api;
    this.ward = ward;
    /** @type {Map<string, Stay>} */
    this.by = new Map();
    this.told = "";
    /** Questions asked, and the newest one that was answered. */
    this.asked = 0;
    this.answered = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.soon = undefined;
    /** Whether the server has told at least once. */
    this.known = false;
    setInterval(() => this.load(), AGAIN_MS);
    ward.addEventListener("turnover", () => this.load());
    ward.addEventListener("beds", () => this.meet());
    this.load();
  }

  /** Ask soon about beds that nothing was told of; many that come one after the other are asked about at once. */
  meet() {
    if (this.soon || [...this.ward.beds.keys()].every((name) => this.by.has(name))) return;
    this.soon = setTimeout(() => {
      this.soon = undefined;
      this.load();
    }, SOON_MS);
  }

  async load() {
    /** @type {Stay[]} */
    const turn = ++this.asked;
    const rows = await this.api.get("/api/beds").catch(() => null);
    // An answer that a later one has overtaken tells what was.
    if (!rows || turn < this.answered) return;
    this.answered = turn;
    const told = JSON.stringify(rows);
    if (told === this.told) return;
    this.told = told;
    this.known = true;
    this.by = new Map(rows.map((row) => [row.patient, row]));
    this.dispatchEvent(new Event("change"));
  }

  /** @param {string} patient */
  of(patient) {
    return this.by.get(patient);
  }

  /** What a bed is called: its label, else the channel; a bare number is called a bed. @param {string} patient */
  bed(patient) {
    const label = this.label(patient);
    return /^\d/.test(label) ? `${T.colBed} ${label}` : label;
  }

  /** The label of a bed as it was written, else the channel. @param {string} patient */
  label(patient) {
    return this.by.get(patient)?.bed || patient;
  }

  /** @param {string} patient */
  person(patient) {
    return this.by.get(patient)?.name ?? "";
  }

  /** @param {string} patient */
  wardOf(patient) {
    return this.by.get(patient)?.ward ?? "";
  }

  /** Whether nobody is admitted to a channel. @param {string} patient */
  vacant(patient) {
    const stay = this.by.get(patient);
    return stay ? !stay.person : (this.ward.beds.get(patient)?.vacant ?? false);
  }

  /** Names of the wards, in order. */
  get wards() {
    return [...new Set([...this.by.values()].map((stay) => stay.ward ?? "").filter(Boolean))].sort();
  }
}
