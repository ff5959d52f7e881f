// The line of tools: where we are, how the wall is laid out, sound, light, clock.
// @ts-check
import { h, mark, put } from "./dom.js";
import { clock } from "./format.js";
import { T } from "./texts.js";
import { DENSITIES, Wall } from "./wall.js";

export class Tools {
  /**
   * @param {HTMLElement} root
   * @param {{ward: import("./ward.js").Ward, prefs: import("./prefs.js").Prefs, signals: import("./signals.js").Signals,
   *   go: (path: string) => void, theme: () => void, logout: () => void}} parts
   */
  constructor(root, parts) {
    this.root = root;
    this.parts = parts;
    this.now = h("span", { class: "now", title: "" });
    this.quiet = /** @type {HTMLElement} */ (document.getElementById("quiet"));
    put(this.quiet, T.soundBlocked);
    this.quiet.addEventListener("click", () => parts.signals.unlock());
    this.ward = h("small", { class: "hide-phone" });
    this.dialog = this.keys();
    this.tests = this.sounds();
    /** @type {unknown} */
    this.view = null;
    this.path = "/";
    parts.signals.addEventListener("allowed", () => this.tick());
    document.body.append(this.dialog, this.tests);
  }

  get dialogOpen() {
    return this.dialog.open || this.tests.open;
  }

  /** @param {string} path @param {unknown} view */
  draw(path, view) {
    this.path = path;
    this.view = view;
    const { prefs, ward } = this.parts;
    const tab = (/** @type {string} */ href, /** @type {string} */ text) =>
      h("a", { href, "aria-current": path === href ? "page" : null }, text);
    /** @type {Node[]} */
    const wall = [];
    if (view instanceof Wall) {
      const seg = h("div", { class: "seg", role: "group", "aria-label": T.beds }, ...[0, ...DENSITIES].map((n) =>
        h("button", { type: "button", "aria-pressed": String(prefs.density === n), onclick: () => this.density(n) }, n ? String(n) : T.auto)));
      const arrange = h("div", { class: "group hide-narrow", title: T.arrange }, h("span", { class: "word" }, T.sort),
        h("div", { class: "seg" },
          h("button", { type: "button", onclick: () => view.arrange("bed") }, T.sortBed),
          h("button", { type: "button", onclick: () => view.arrange("urgency") }, T.sortUrgency)));
      wall.push(h("div", { class: "group hide-phone" }, h("span", { class: "word" }, T.beds), seg), arrange);
    }
    put(this.ward, ward.name);
    this.root.replaceChildren(
      h("a", { class: "brand", href: "/" }, h("img", { src: "/ui/icon.svg", alt: "" }), h("span", { class: "hide-phone" }, T.product), this.ward),
      h("div", { class: "tabs" }, tab("/", T.wall), tab("/alarms", T.alarms), tab("/files", T.files)),
      h("span", { class: "grow" }), ...wall,
      h("button", { class: "plain hide-phone", type: "button", onclick: () => this.tests.showModal() }, T.sound),
      h("button", { class: "plain icon hide-narrow", type: "button", "aria-label": T.theme, title: T.theme, onclick: () => this.parts.theme() }, "◐"),
      h("button", { class: "plain icon hide-narrow", type: "button", "aria-label": T.help, title: T.help, onclick: () => this.help() }, "?"),
      h("button", { class: "plain hide-phone", type: "button", onclick: () => this.parts.logout() }, T.logout),
      this.now);
    this.tick();
  }

  /** @param {number} n */
  density(n) {
    this.parts.prefs.density = n;
    if (this.view instanceof Wall) {
      this.view.layout();
      this.draw(this.path, this.view);
    }
  }

  tick() {
    put(this.now, clock(this.parts.ward.now()));
    this.quiet.hidden = this.parts.signals.allowed;
    mark(document.documentElement, "data-sound", this.parts.signals.allowed ? "on" : "blocked");
    put(this.ward, this.parts.ward.name);
  }

  help() {
    if (!this.dialog.open) this.dialog.showModal();
  }

  keys() {
    const dialog = h("dialog", { "aria-label": T.help }, h("h2", {}, T.help),
      ...T.helpLines.map(([key, text]) => h("p", {}, h("kbd", {}, key), text)));
    dialog.addEventListener("click", () => dialog.close());
    return dialog;
  }

  sounds() {
    const button = (/** @type {import("./signals.js").Tone} */ tone, /** @type {string} */ text) =>
      h("button", { class: "plain", type: "button", onclick: () => this.parts.signals.burst(tone) }, text);
    const close = h("button", { class: "plain", type: "button" }, T.close);
    const dialog = h("dialog", { "aria-label": T.sound }, h("h2", {}, T.sound),
      h("p", { class: "group" }, button("high", T.soundHigh), button("medium", T.soundMedium), button("low", T.soundLow), close));
    close.addEventListener("click", () => dialog.close());
    return dialog;
  }
}
