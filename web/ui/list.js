// The list of alarms, open ones or all that this server remembers.
// @ts-check
import { query } from "./api.js";
import { h, put, sign } from "./dom.js";
import { age, against, clock, kindName, worded } from "./format.js";
import { T } from "./texts.js";
import { PRESENCE, PRIORITY } from "./vocabulary.js";
import { View, covers } from "./view.js";
import { level, urgency, waits } from "./ward.js";

/** Alarms that are read out of the history. */
const MOST = 300;

/**
 * Button to acknowledge, where there is something to acknowledge and the user may.
 * @param {import("./ward.js").Alarm} alarm @param {import("./view.js").Parts} parts
 */
export function ackButton(alarm, parts) {
  const { acts } = parts;
  if (!waits(alarm) || !covers(parts.session.role, "monitor")) return h("span");
  const state = acts.state(alarm.id);
  return h("button", { class: "ack", type: "button", disabled: state === "sent", title: state === "failed" ? T.ackFailed : null,
    "aria-label": `${T.acknowledge}: ${parts.stays.bed(alarm.patient)}, ${kindName(alarm.kind)}`, onclick: () => acts.acknowledge(alarm.id) },
    state === "sent" ? T.acknowledging : state === "failed" ? `${T.acknowledge} ↻` : T.acknowledge);
}

/** @param {import("./ward.js").Alarm} alarm */
export function stateText(alarm) {
  if (alarm.acked_by) return T.stateBy(PRESENCE[alarm.presence], alarm.presence === "ack", alarm.acked_by, alarm.acked_ms ? clock(alarm.acked_ms) : "");
  return PRESENCE[alarm.presence] ?? alarm.presence;
}

export class AlarmList extends View {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.alarms);
    const { ward, link, acts } = parts;
    this.ward = ward;
    this.acts = acts;
    this.all = false;
    /** Alarms out of the history, and until when all of them are here. @type {import("./ward.js").Alarm[]} */
    this.past = [];
    this.body = h("tbody", { role: "rowgroup" });
    /** @type {[Node, number][]} */
    this.ages = [];
    const seg = h("div", { class: "seg", role: "group" },
      h("button", { type: "button", onclick: () => this.choose(false) }, T.showOpen),
      h("button", { type: "button", onclick: () => this.choose(true) }, T.showAll));
    this.seg = seg;
    this.empty = h("p", { class: "empty" });
    // On a phone a row is laid out as a block, which takes its role from it in some browsers.
    this.table = h("table", { role: "table" }, h("thead", { role: "rowgroup" }, h("tr", { role: "row" },
      ...[[T.colAlarm, ""], [T.colBed, ""], [T.colValue, "opt"], [T.colOnset, "opt"], [T.colAge, ""], [T.colState, "opt"], ["", ""]]
        .map(([text, extra]) => h("th", { class: extra || null, scope: "col", role: "columnheader" }, text)))), this.body);
    this.root = h("div", { class: "list alarm-list" }, h("div", { class: "list-head" }, h("h1", {}, T.alarms), seg),
      h("div", { class: "card" }, this.table, this.empty));
    this.on(ward, "alarms", () => this.draw());
    this.on(acts, "change", () => this.draw());
    this.on(parts.stays, "change", () => this.draw());
    link.watch([], null);
    this.draw();
  }

  /** @param {boolean} all */
  choose(all) {
    this.all = all;
    this.draw();
    if (all) this.load();
  }

  /** What the history holds; alarms that are open or just over come by the connection. */
  async load() {
    const rows = await this.parts.api.get(`/api/alarms${query({ limit: MOST })}`).catch(() => []);
    if (!this.open) return;
    this.past = rows.map((/** @type {{alarm: import("./ward.js").Alarm}} */ row) => row.alarm);
    this.draw();
  }

  /** Alarms of the list. */
  alarms() {
    if (!this.all) return this.ward.open();
    const known = new Map(this.past.map((alarm) => [alarm.id, alarm]));
    for (const alarm of this.ward.alarms.values()) known.set(alarm.id, alarm);
    return [...known.values()].sort((a, b) => Number(b.presence !== "off") - Number(a.presence !== "off") || (a.presence === "off" ? b.onset_ms - a.onset_ms : urgency(a, b)));
  }

  draw() {
    [...this.seg.children].forEach((button, i) => button.setAttribute("aria-pressed", String(Boolean(i) === this.all)));
    const alarms = this.alarms();
    this.table.hidden = !alarms.length;
    this.empty.hidden = alarms.length > 0;
    put(this.empty, this.all ? T.noneAll : T.noneOpen);
    this.ages = [];
    this.body.replaceChildren(...alarms.map((alarm) => {
      const since = h("td", { class: "since", role: "cell" });
      this.ages.push([since, alarm.presence === "off" ? 0 : alarm.raised_ms]);
      return h("tr", { role: "row", "data-level": level(alarm), "data-presence": alarm.presence, "data-alarm": alarm.id },
        h("td", { class: "alarm", role: "cell" }, h("div", { class: "what" }, sign(level(alarm)), h("div", {}, kindName(alarm.kind),
          h("small", {}, alarm.technical ? PRIORITY[0] : `${PRIORITY[alarm.priority]}${alarm.detail ? ` · ${worded(alarm.detail)}` : ""}`)))),
        h("td", { role: "cell" }, h("a", { class: "bed", href: `/patient/${encodeURIComponent(alarm.patient)}?alarm=${encodeURIComponent(alarm.id)}` }, this.parts.stays.bed(alarm.patient)),
          h("small", {}, this.parts.stays.person(alarm.patient))),
        h("td", { class: "opt", role: "cell" }, against(alarm)), h("td", { class: "opt", role: "cell" }, clock(alarm.onset_ms)), since,
        h("td", { class: "opt", role: "cell" }, stateText(alarm)), h("td", { class: "num act-cell", role: "cell" }, ackButton(alarm, this.parts)));
    }));
    this.tick();
  }

  tick() {
    for (const [node, since] of this.ages) put(node, since ? T.ago(age(this.ward.now() - since)) : "–");
  }
}
