// Whom alarms are told beside the pages: webhook, mail, the device's own topic.
// @ts-check
import { h } from "./dom.js";
import { field, select, table, tell } from "./forms.js";
import { Section } from "./section.js";
import { T } from "./texts.js";
import { CHANNELS, PRIORITY } from "./vocabulary.js";

export class Contacts extends Section {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.contacts, "/api/contacts");
    const label = h("input", { required: true, maxlength: "255" });
    const channel = select(Object.entries(CHANNELS), "webhook");
    const address = h("input", { maxlength: "1000" });
    const ward = h("input", { maxlength: "255" });
    const level = select([0, 1, 2, 3].map((n) => [String(n), T.escalation(n)]), "0");
    const priority = select([3, 2, 1].map((n) => [String(n), PRIORITY[n]]), "3");
    this.head.append(this.form([field(T.label, label), field(T.channel, channel), field(T.address, address), field(T.wardName, ward), field(T.toldAt, level), field(T.fromPriority, priority)], T.addContact,
      () => this.keep([...this.rows, { label: label.value, channel: channel.value, address: address.value, ward: ward.value, level: Number(level.value), priority: Number(priority.value) }])));
  }

  /** @type {any[]} */
  rows = [];

  /** Store all contacts; the secret of a new webhook is in the answer and nowhere else. @param {any[]} rows */
  async keep(rows) {
    const known = new Set(this.rows.map((row) => row.id));
    const plain = rows.map(({ secret: _, ...row }) => row);
    const kept = await this.parts.api.put("/api/contacts", plain);
    const fresh = kept.find((/** @type {any} */ row) => row.secret && !known.has(row.id));
    if (fresh) setTimeout(() => tell(T.secretOf(fresh.label), [h("p", {}, T.webhookSecret), h("p", { class: "secret" }, fresh.secret)]));
  }

  /** @param {any[]} contacts */
  show(contacts) {
    this.rows = contacts;
    return [table([T.label, T.channel, T.address, T.forWhom, T.toldAt, T.fromPriority, ""], contacts.map((row) => [row.label, CHANNELS[row.channel] ?? row.channel, row.address || "–",
      row.patient || row.ward || T.everybody, T.escalation(row.level), PRIORITY[row.priority],
      this.button(T.remove, row.label, { title: T.removeOf(row.label), loses: T.removeContactLoses }, () => this.keep(contacts.filter((one) => one !== row)))]), T.noContacts)];
  }
}
