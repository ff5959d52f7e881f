// The line of tools: where we are, how the wall is laid out, sound, light, clock.
// @ts-check
import { h, mark, put } from "./dom.js";
import { clock } from "./format.js";
import { T } from "./texts.js";
import { covers } from "./view.js";
import { DENSITIES, Wall } from "./wall.js";

/** Addresses of the pages, their names, and the role that sees them. */
const TABS = [["/", T.wall, "viewer"], ["/alarms", T.alarms, "viewer"], ["/review", T.review, "viewer"], ["/load", T.load, "viewer"],
  ["/admit", T.admit, "viewer"], ["/files", T.files, "viewer"], ["/admin", T.admin, "admin"], ["/help", T.help, "viewer"]];

export class Tools {
  /**
   * @param {HTMLElement} root
   * @param {import("./view.js").Parts & {theme: () => void}} parts
   */
  constructor(root, parts) {
    this.root = root;
    this.parts = parts;
    this.now = h("span", { class: "now" });
    this.quiet = /** @type {HTMLElement} */ (document.getElementById("quiet"));
    put(this.quiet, T.soundBlocked);
    this.quiet.addEventListener("click", () => parts.signals.unlock());
    this.ward = h("small", { class: "hide-phone" });
    /** @type {import("./view.js").View | null} */
    this.view = null;
    this.path = "/";
    parts.signals.addEventListener("allowed", () => this.tick());
    parts.stays.addEventListener("change", () => this.view instanceof Wall && this.draw(this.path, this.view));
  }

  /** @param {string} path @param {import("./view.js").View} view */
  draw(path, view) {
    // A change of the wards must not take the filter from under somebody's fingers.
    if (this.filter && view === this.view && document.activeElement === this.filter) return;
    this.path = path;
    this.view = view;
    const { session } = this.parts;
    const here = path.startsWith("/review") ? "/review" : path;
    const tabs = TABS.filter(([, , role]) => covers(session.role, role)).map(([href, text]) =>
      h("a", { href, "aria-current": here === href ? "page" : null }, text));
    put(this.ward, this.parts.ward.name);
    // On a phone the wall needs the line for its filter; every other page has room for both buttons.
    const wide = view instanceof Wall ? "hide-phone" : "";
    this.root.replaceChildren(
      h("a", { class: "brand", href: "/", "aria-label": T.product }, h("img", { src: "/ui/icon.svg", alt: "" }), h("span", { class: "hide-mid" }, T.product), this.ward),
      h("div", { class: "tabs" }, ...tabs),
      h("span", { class: "grow" }), ...(view instanceof Wall ? this.walls(view) : []),
      h("button", { class: `plain icon ${wide}`, type: "button", "aria-label": T.theme, title: T.theme, onclick: () => this.parts.theme() }, "◐"),
      h("button", { class: `plain ${wide}`, type: "button", title: `${session.user} (${session.role})`, onclick: () => this.parts.acts.logout() }, T.logout),
      this.now);
    this.tick();
  }

  /** What only the wall has. @param {Wall} view @returns {Node[]} */
  walls(view) {
    const { prefs, stays } = this.parts;
    const press = (/** @type {boolean} */ on, /** @type {string} */ text, /** @type {() => void} */ act) =>
      h("button", { type: "button", "aria-pressed": String(on), onclick: () => {
        act();
        this.draw(this.path, view);
      } }, text);
    const beds = h("select", { class: "field", "aria-label": T.density, title: T.density }, ...[0, ...DENSITIES].map((n) =>
      h("option", { value: String(n), selected: prefs.density === n }, n ? T.bedsOf(n) : T.bedsAuto)));
    beds.addEventListener("change", () => this.density(Number(beds.value)));
    const arrange = h("div", { class: "seg", role: "group", "aria-label": T.arrange, title: T.arrange },
      h("button", { type: "button", onclick: () => view.arrange("bed") }, T.sortBed),
      h("button", { type: "button", onclick: () => view.arrange("urgency") }, T.sortUrgency));
    this.filter = h("input", { class: "filter", type: "search", placeholder: T.filter, "aria-label": T.filterBeds });
    this.filter.value = view.filter;
    this.filter.addEventListener("input", () => view.search(/** @type {HTMLInputElement} */ (this.filter).value));
    const wards = stays.wards;
    const tabs = wards.length > 1 ? [h("div", { class: "seg", role: "group", "aria-label": T.wards },
      ...["", ...wards].map((name) => press(prefs.ward === name, name || T.allWards, () => view.choose(name))))] : [];
    return [...tabs, this.filter, h("div", { class: "group hide-phone" }, beds),
      h("div", { class: "group hide-narrow" }, h("span", { class: "word" }, T.sort), arrange)];
  }

  /** @param {number} n */
  density(n) {
    this.parts.prefs.density = n;
    if (!(this.view instanceof Wall)) return;
    this.view.layout();
    this.draw(this.path, this.view);
  }

  tick() {
    const { signals, ward } = this.parts;
    put(this.now, clock(ward.now()));
    this.quiet.hidden = signals.allowed;
    mark(document.documentElement, "data-sound", signals.allowed ? "on" : "blocked");
    put(this.ward, ward.name);
  }
}
