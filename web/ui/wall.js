// The wall of beds. Beds keep their place; sorting is an act of the user.
// @ts-check
import { h } from "./dom.js";
import { natural } from "./format.js";
import { T } from "./texts.js";
import { Tile } from "./tile.js";
import { level, urgency, waits } from "./ward.js";

/** Places remembered, of beds that are here and of some that were. */
const PLACES = 512;
export const DENSITIES = [4, 9, 16, 36, 64];

export class Wall {
  /**
   * @param {import("./ward.js").Ward} ward
   * @param {import("./link.js").Link} link
   * @param {import("./prefs.js").Prefs} prefs
   * @param {import("./sweep.js").Palette} palette
   */
  constructor(ward, link, prefs, palette) {
    this.ward = ward;
    this.link = link;
    this.prefs = prefs;
    this.palette = palette;
    this.at = 0;
    /** @type {Tile[]} */
    this.tiles = [];
    this.grid = h("div", { class: "grid", role: "list" });
    this.pager = h("div", { class: "pager" });
    this.root = h("div", { class: "wall" }, this.grid, this.pager);
    this.redraw = () => this.layout();
    this.alarmed = () => this.update(true);
    ward.addEventListener("beds", this.redraw);
    ward.addEventListener("alarms", this.alarmed);
    this.root.addEventListener("keydown", (event) => this.keys(event));
    this.layout();
  }

  close() {
    this.ward.removeEventListener("beds", this.redraw);
    this.ward.removeEventListener("alarms", this.alarmed);
    for (const tile of this.tiles) tile.close();
  }

  /** Beds in their places: as they were last arranged, new ones at the end. */
  places() {
    const known = new Set(this.prefs.places);
    const fresh = [...this.ward.beds.keys()].filter((name) => !known.has(name)).sort(natural);
    if (fresh.length) this.prefs.places = [...this.prefs.places, ...fresh].slice(-PLACES);
    return this.prefs.places.filter((name) => this.ward.beds.has(name));
  }

  /** Arrange once. @param {"bed" | "urgency"} by */
  arrange(by) {
    const names = [...this.ward.beds.keys()].sort(natural);
    if (by === "urgency") {
      const worst = new Map(names.map((name) => [name, this.ward.of(name)[0]]));
      names.sort((a, b) => {
        const [one, two] = [worst.get(a), worst.get(b)];
        return one && two ? urgency(one, two) : Number(Boolean(two)) - Number(Boolean(one));
      });
    }
    this.prefs.places = names;
    this.at = 0;
    this.layout();
  }

  layout() {
    const places = this.places();
    const wanted = this.prefs.density;
    const size = wanted || DENSITIES.find((n) => n >= places.length) || 64;
    const side = Math.sqrt(size);
    const pages = Math.max(1, Math.ceil(places.length / size));
    this.at = Math.min(this.at, pages - 1);
    const shown = places.slice(this.at * size, (this.at + 1) * size);
    // With fewer beds than places, whole rows that would stay empty are given to the others.
    const rows = wanted ? side : Math.max(1, Math.ceil(shown.length / side));
    this.grid.style.setProperty("--columns", String(side));
    this.grid.style.setProperty("--rows", String(rows));
    this.grid.dataset.density = String(size);
    const kept = new Map(this.tiles.map((tile) => [tile.bed, tile]));
    this.tiles = [];
    const children = [];
    for (const name of shown) {
      const bed = this.ward.bed(name);
      const tile = kept.get(bed) ?? new Tile(bed, this.ward, this.palette);
      kept.delete(bed);
      this.tiles.push(tile);
      children.push(tile.root);
    }
    for (const tile of kept.values()) tile.close();
    if (!places.length && this.ward.synced) children.push(h("p", { class: "empty" }, T.emptyWall));
    const same = children.length === this.grid.children.length && children.every((child, i) => this.grid.children[i] === child);
    if (!same) this.grid.replaceChildren(...children);
    this.pages(pages, size, places);
    this.link.watch(shown, null);
    this.update(true);
  }

  /** @param {number} pages @param {number} size @param {string[]} places */
  pages(pages, size, places) {
    this.pager.hidden = pages < 2;
    if (pages < 2) return;
    this.pager.replaceChildren(...Array.from({ length: pages }, (_, i) => {
      const names = places.slice(i * size, (i + 1) * size);
      const worst = names.flatMap((name) => this.ward.of(name)).filter(waits).sort(urgency)[0];
      const button = h("button", { class: "plain", "aria-current": i === this.at ? "page" : null, "aria-label": T.page(i + 1, pages),
        "data-level": worst ? level(worst) : null, onclick: () => { this.at = i; this.layout(); } },
        worst ? `${i + 1} !` : `${i + 1}`);
      return button;
    }));
  }

  /** @param {boolean} [alarms] */
  update(alarms = false) {
    for (const tile of this.tiles) tile.update(alarms);
    if (alarms && !this.pager.hidden) {
      const size = Number(this.grid.dataset.density);
      const places = this.places();
      this.pages(Math.ceil(places.length / size), size, places);
    }
  }

  /** @param {number} now */
  frame(now) {
    for (const tile of this.tiles) tile.sweep.frame(now);
  }

  tick() {
    this.update(false);
  }

  recolour() {
    for (const tile of this.tiles) tile.recolour(this.palette);
  }

  /** @param {KeyboardEvent} event */
  keys(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: 0, ArrowDown: 0 };
    if (!(event.key in steps)) return;
    const roots = this.tiles.map((tile) => tile.root);
    const from = roots.indexOf(/** @type {HTMLAnchorElement} */ (document.activeElement));
    if (from < 0) return;
    const columns = getComputedStyle(this.grid).gridTemplateColumns.split(" ").length;
    const step = event.key === "ArrowUp" ? -columns : event.key === "ArrowDown" ? columns : steps[/** @type {keyof steps} */ (event.key)];
    roots[from + step]?.focus();
    event.preventDefault();
  }
}
