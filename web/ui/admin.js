// Administration: accounts, tokens, devices, contacts of the alarms, retention, persons, and the trail of all acts.
// @ts-check
import { Contacts } from "./contacts.js";
import { h } from "./dom.js";
import { Devices } from "./admindevices.js";
import { Users, Tokens } from "./adminpeople.js";
import { Persons, Retention, TrailRows } from "./adminkept.js";
import { T } from "./texts.js";
import { View } from "./view.js";

export class Admin extends View {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.admin);
    parts.link.watch([], null);
    if (!this.may("admin")) {
      this.root = h("div", { class: "page" }, h("h1", {}, T.admin), h("p", { class: "refused" }, T.needsAdmin));
      return;
    }
    const sections = [new Users(parts), new Tokens(parts), new Devices(parts), new Contacts(parts), new Retention(parts), new Persons(parts), new TrailRows(parts)];
    this.root = h("div", { class: "page admin" }, h("h1", {}, T.admin), ...sections.map((section) => section.root));
  }
}
