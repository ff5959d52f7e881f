// Admit, transfer, discharge, notes and consent. Each dialog names the patient and says what is lost.
// @ts-check
import { part } from "./api.js";
import { h } from "./dom.js";
import { ask, failure, field, select } from "./forms.js";
import { clock } from "./format.js";
import { T } from "./texts.js";
import { PROFILES, PURPOSES } from "./vocabulary.js";

const SEXES = /** @type {[string, string][]} */ (Object.entries(T.sexes));

/** @param {string} patient @param {import("./view.js").Parts} parts */
const named = (patient, parts) => [parts.stays.person(patient) || T.noPatient, parts.stays.bed(patient)].join(", ");

/** @param {string} text @param {Record<string, unknown>} [more] */
const line = (text, more = {}) => h("input", { type: "text", maxlength: "255", autocomplete: "off", value: text, ...more });

/** @param {string} patient @param {import("./view.js").Parts} parts */
export async function admit(patient, parts) {
  const name = line("", { required: true });
  const mrn = line("", { maxlength: "128" });
  const born = h("input", { type: "date" });
  const sex = select(SEXES);
  const bed = line(parts.stays.label(patient), { required: true, maxlength: "64" });
  const ward = line(parts.stays.wardOf(patient) || parts.ward.name, { maxlength: "64" });
  const profile = select(Object.entries(PROFILES), "adult");
  const done = await ask({
    title: T.admitTitle(patient), submit: T.admitDo,
    body: [h("p", {}, T.admitSays), field(T.patientName, name), field(T.mrn, mrn), field(T.born, born), field(T.sex, sex),
      field(T.colBed, bed), field(T.wardName, ward), field(T.profile, profile)],
    act: () => parts.api.post(`/api/patients/${part(patient)}/admit`,
      { name: name.value.trim(), mrn: mrn.value.trim(), born: born.value, sex: sex.value, bed: bed.value.trim(), ward: ward.value.trim(), profile: profile.value }),
  });
  if (done) await parts.stays.load();
  return done;
}

/** @param {string} patient @param {import("./view.js").Parts} parts */
export async function discharge(patient, parts) {
  const done = await ask({
    title: T.dischargeTitle(named(patient, parts)), submit: T.dischargeDo, danger: true, body: [h("p", {}, T.dischargeLoses)],
    act: () => parts.api.post(`/api/patients/${part(patient)}/discharge`),
  });
  if (done) await parts.stays.load();
  return done;
}

/** @param {string} patient @param {import("./view.js").Parts} parts */
export async function transfer(patient, parts) {
  const { stays, ward } = parts;
  const bed = line(stays.label(patient), { required: true, maxlength: "64" });
  const unit = line(stays.wardOf(patient), { maxlength: "64" });
  const free = [...ward.beds.keys()].filter((name) => name !== patient && stays.vacant(name)).sort();
  const device = select([["", T.sameDevice], ...free.map((name) => /** @type {[string, string]} */ ([name, name]))]);
  const done = await ask({
    title: T.transferTitle(named(patient, parts)), submit: T.transferDo, body: [h("p", {}, T.transferSays), field(T.colBed, bed), field(T.wardName, unit), field(T.device, device)],
    act: () => parts.api.post(`/api/patients/${part(patient)}/transfer`, { bed: bed.value.trim(), ward: unit.value.trim(), device: device.value || null }),
  });
  if (done) await stays.load();
  return done;
}

/** Notes on whoever lies here, and what was agreed to. */
export class CarePanel {
  /** @param {string} patient @param {import("./view.js").Parts} parts @param {{monitor: boolean, clinician: boolean}} may */
  constructor(patient, parts, may) {
    this.patient = patient;
    this.parts = parts;
    this.may = may;
    this.who = h("div", { class: "row" });
    this.notes = h("div", { class: "notes" });
    this.kept = h("div");
    /** Whom the note is about that is being written; it outlives what is drawn anew round it. @type {string | null} */
    this.person = null;
    this.text = h("textarea", { rows: "2", maxlength: "4000", required: true });
    this.consents = h("div");
    this.root = h("section", { class: "card pad care" }, h("h2", {}, T.patient), this.who, h("h3", {}, T.consent), this.consents, h("h3", {}, T.notes), this.notes);
    this.draw();
  }

  /** Draw anew: somebody else may lie here now. */
  draw() {
    const { patient, parts, may } = this;
    const stay = parts.stays.of(patient);
    const vacant = parts.stays.vacant(patient);
    const button = (/** @type {string} */ text, /** @type {(patient: string, parts: import("./view.js").Parts) => Promise<boolean>} */ act, kind = "plain") =>
      h("button", { class: kind, type: "button", onclick: () => act(patient, parts) }, text);
    const acts = !may.clinician ? [] : vacant ? [button(T.admitDo, admit, "act")] : [button(T.transferDo, transfer), button(T.dischargeDo, discharge)];
    this.who.replaceChildren(h("b", {}, vacant ? T.noPatient : (stay?.name ?? T.unknown)),
      h("span", { class: "note" }, stay?.since_ms ? T.since(clock(stay.since_ms)) : ""), ...acts,
      h("a", { class: "plain button", href: `/review/${encodeURIComponent(patient)}` }, T.disclosure));
    if (vacant || !stay) {
      this.consents.replaceChildren(h("p", { class: "none" }, T.nobodyHere));
      this.notes.replaceChildren(h("p", { class: "none" }, T.nobodyHere));
      this.person = null;
      return;
    }
    this.consent(stay);
    if (stay.person !== this.person) {
      this.person = stay.person;
      this.text.value = "";
      this.notes.replaceChildren(...(this.may.monitor ? [this.writing()] : []), this.kept);
    }
    this.loadNotes();
  }

  /** @param {import("./stays.js").Stay} stay */
  consent(stay) {
    const given = Array.isArray(stay.consent) ? stay.consent : [];
    this.consents.replaceChildren(...Object.entries(PURPOSES).map(([purpose, text]) => {
      const yes = given.includes(purpose);
      return h("p", { class: "row consent" }, h("span", {}, `${text}: `, h("b", {}, yes ? T.agreed : T.notAgreed)),
        this.may.clinician ? h("button", { class: "plain", type: "button", "aria-label": `${T.change}: ${text}`, onclick: () => this.agree(purpose, text, !yes) }, T.change) : null);
    }));
  }

  /** @param {string} purpose @param {string} text @param {boolean} given */
  async agree(purpose, text, given) {
    const by = line("", { required: true });
    const done = await ask({
      title: T.consentTitle(text, named(this.patient, this.parts)), submit: given ? T.consentYes : T.consentNo, danger: !given,
      body: [h("p", {}, given ? T.consentSays : T.consentLoses), field(T.consentBy, by, T.consentByHint)],
      act: () => this.parts.api.post(`/api/patients/${part(this.patient)}/consent`, { purpose, given, by: by.value.trim() }),
    });
    if (done) await this.parts.stays.load();
  }

  /** Form of a new note. */
  writing() {
    const { text } = this;
    const failed = h("div");
    const form = h("form", {}, field(T.newNote, text), h("button", { class: "plain", type: "submit" }, T.writeNote), failed);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      failed.replaceChildren();
      try {
        await this.parts.api.post(`/api/patients/${part(this.patient)}/notes`, { text: text.value });
        text.value = "";
        await this.loadNotes();
      } catch (error) {
        failed.replaceChildren(failure(error));
      }
    });
    return form;
  }

  async loadNotes() {
    try {
      const notes = await this.parts.api.get(`/api/patients/${part(this.patient)}/notes`);
      this.kept.replaceChildren(...(notes.length ? notes.map((/** @type {any} */ note) =>
        h("div", { class: "note-row" }, h("small", {}, `${clock(note.ms)} · ${note.user}`), h("p", {}, note.text))) : [h("p", { class: "none" }, T.noNotes)]));
    } catch (error) {
      this.kept.replaceChildren(failure(error));
    }
  }
}
