// The alarm load: how many alarms, of what, where and when, how many were false, and whose limits to look at.
// @ts-check
import { query } from "./api.js";
import { h, put } from "./dom.js";
import { failure, select, table } from "./forms.js";
import { kindName, worded, zoneApart } from "./format.js";
import { T } from "./texts.js";
import { View } from "./view.js";

const DAYS = [1, 7, 30];

/** @param {number} part @param {number} whole */
const share = (part, whole) => (whole ? `${Math.round((100 * part) / whole)} %` : "–");

export class LoadPage extends View {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.loadTitle);
    this.days = 7;
    this.said = h("p", { class: "note", role: "status" });
    this.body = h("div", { class: "load-body" });
    const days = select(DAYS.map((n) => [String(n), T.lastDays(n)]), "7");
    days.className = "field";
    days.setAttribute("aria-label", T.period);
    days.addEventListener("change", () => {
      this.days = Number(days.value);
      this.load();
    });
    this.root = h("div", { class: "page load" }, h("div", { class: "row" }, h("h1", {}, T.loadTitle), days, this.said), this.body);
    this.on(parts.stays, "change", () => this.shown && this.draw(this.shown));
    parts.link.watch([], null);
    this.load();
  }

  async load() {
    put(this.said, T.loadingOne);
    try {
      this.shown = await this.parts.api.get(`/api/load${query({ days: this.days })}`);
      if (!this.open) return;
      put(this.said, "");
      this.draw(this.shown);
    } catch (error) {
      put(this.said, "");
      this.body.replaceChildren(failure(error));
    }
  }

  /** @param {any} load */
  draw(load) {
    const figure = (/** @type {string} */ value, /** @type {string} */ text) => h("div", { class: "card figure" }, h("b", {}, value), h("span", {}, text));
    this.body.replaceChildren(
      h("div", { class: "figures" }, figure(String(load.count), T.alarmsCount), load.per_patient_day === null ? figure("–", T.tooEarly) : figure(load.per_patient_day.toFixed(1), T.perPatientDay),
        figure(load.patient_days.toFixed(1), T.patientDays), figure(String(load.judged), T.judgedCount),
        figure(load.judged_false_share === null ? "–" : share(load.judged_false_share, 1), T.falseShare)),
      h("div", { class: "columns" },
        h("section", { class: "card pad" }, h("h2", {}, T.byKind), this.bars(load.by_kind, kindName)),
        h("section", { class: "card pad" }, h("h2", {}, T.byWard), this.bars(load.by_ward, (name) => name || T.noWard)),
        h("section", { class: "card pad" }, h("h2", {}, zoneApart(this.parts.session) ? `${T.byHour} (${this.parts.session.zone})` : T.byHour), ...this.hours(load.by_hour)),
        h("section", { class: "card pad wide" }, h("h2", {}, T.noisiest), this.noisiest(load.noisiest))));
  }

  /** @param {Record<string, any>} shares @param {(name: string) => string} named */
  bars(shares, named) {
    const rows = Object.entries(shares).sort((a, b) => b[1].count - a[1].count);
    if (!rows.length) return h("p", { class: "none" }, T.noneAll);
    const most = rows[0][1].count;
    return h("div", { class: "bars" }, ...rows.flatMap(([name, one]) => {
      const bar = h("div", { class: one.technical === one.count ? "bar technical" : "bar" });
      bar.style.width = `${(100 * one.count) / most}%`;
      return [h("span", {}, named(name)), bar, h("span", { class: "num" }, T.loadRow(one.count, one.per_patient_day?.toFixed(1) ?? "", one.judged ? share(one.false, one.judged) : ""))];
    }));
  }

  /** @param {number[]} counts @returns {Node[]} */
  hours(counts) {
    const most = Math.max(1, ...counts);
    const text = counts.map((n, hour) => `${hour} h: ${n}`).join(", ");
    return [h("div", { class: "hours", role: "img", "aria-label": text }, ...counts.map((n, hour) => {
      const bar = h("div", { title: `${hour} h: ${n}` });
      bar.style.height = `${(100 * n) / most}%`;
      return bar;
    })), h("div", { class: "hours-axis", "aria-hidden": "true" }, ...["0 h", "6 h", "12 h", "18 h", "24 h"].map((at) => h("span", {}, at)))];
  }

  /** @param {any[]} rows */
  noisiest(rows) {
    const { stays } = this.parts;
    return table([T.patient, T.alarmsCount, T.mostOf, T.whatToDo, ""], rows.map((one) => [
      `${stays.bed(one.patient)} ${stays.person(one.patient)}`, String(one.count), `${kindName(one.kind)} (${one.kind_count})`, worded(one.hint) || "–",
      h("a", { class: "plain button", href: `/patient/${encodeURIComponent(one.patient)}`, "aria-label": `${T.limits}: ${stays.bed(one.patient)}` }, T.limits)]), T.noneAll);
  }
}
