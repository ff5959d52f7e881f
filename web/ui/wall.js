// The wall of beds. Beds keep their place; sorting is an act of the user.
// @ts-check
import { h } from "./dom.js";
import { natural } from "./format.js";
import { T } from "./texts.js";
import { Tile } from "./tile.js";
import { View } from "./view.js";
import { level, urgency, waits } from "./ward.js";

/** Places remembered, of beds that are here and of some that were. */
const PLACES = 512;
export const DENSITIES = [4, 9, 16, 36, 64];
/** Above this many tiles each half of the wall is drawn in every second frame: a sweep moves 3 pixels at a time. */
const WHOLE = 16;

export class Wall extends View {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.wall);
    const { ward, link, prefs, stays } = parts;
    this.ward = ward;
    this.link = link;
    this.prefs = prefs;
    this.stays = stays;
    this.at = 0;
    this.turn = 0;
    /** What beds must hold to be shown, lower case. */
    this.filter = "";
    /** @type {Tile[]} */
    this.tiles = [];
    this.grid = h("div", { class: "grid", role: "list", "aria-label": T.beds });
    this.pager = h("div", { class: "pager" });
    this.root = h("div", { class: "wall" }, this.grid, this.pager);
    const layout = () => this.layout();
    this.on(ward, "beds", layout);
    this.on(stays, "change", () => {
      for (const tile of this.tiles) tile.who();
      this.layout();
    });
    this.on(ward, "alarms", () => this.update(true));
    this.on(ward, "settings", () => this.update(false));
    this.root.addEventListener("keydown", (event) => this.keys(event));
    this.layout();
  }

  close() {
    super.close();
    for (const tile of this.tiles) tile.close();
  }

  /** Beds in their places: as they were last arranged, new ones at the end. */
  places() {
    const known = new Set(this.prefs.places);
    const fresh = this.inOrder().filter((name) => !known.has(name));
    const places = [...this.prefs.places, ...fresh];
    // Where a bed first stands is kept only once its label is known.
    if (fresh.length && this.stays.known) this.prefs.places = places.slice(-PLACES);
    return places.filter((name) => this.ward.beds.has(name) && this.chosen(name));
  }

  /** Beds by their labels. */
  inOrder() {
    return [...this.ward.beds.keys()].sort((a, b) => natural(this.stays.label(a), this.stays.label(b)));
  }

  /** Whether ward and filter let a bed through. @param {string} name */
  chosen(name) {
    const { stays, filter } = this;
    if (this.prefs.ward && stays.wards.includes(this.prefs.ward) && stays.wardOf(name) !== this.prefs.ward) return false;
    return !filter || `${name} ${stays.bed(name)} ${stays.person(name)}`.toLowerCase().includes(filter);
  }

  /** @param {string} text */
  search(text) {
    this.filter = text.trim().toLowerCase();
    this.at = 0;
    this.layout();
  }

  /** @param {string} ward */
  choose(ward) {
    this.prefs.ward = ward;
    this.at = 0;
    this.layout();
  }

  /** Arrange once. @param {"bed" | "urgency"} by */
  arrange(by) {
    const names = this.inOrder();
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
      const tile = kept.get(bed) ?? new Tile(bed, this.ward, this.parts.palette, this.stays);
      kept.delete(bed);
      this.tiles.push(tile);
      children.push(tile.item);
    }
    for (const tile of kept.values()) tile.close();
    if (!places.length && this.ward.synced) children.push(h("div", { class: "empty", role: "listitem" }, h("div", {}, h("p", {}, this.ward.beds.size ? T.noneMatch : T.emptyWall),
      !this.ward.beds.size && this.may("admin") ? h("a", { class: "act button", href: "/admin" }, T.emptyWallDo) : null)));
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
    const { tiles } = this;
    const half = Math.ceil(tiles.length / 2);
    this.turn = tiles.length > WHOLE ? 3 - Math.max(1, this.turn) : 0;
    const from = this.turn === 2 ? half : 0;
    const to = this.turn === 1 ? half : tiles.length;
    for (let i = from; i < to; i++) tiles[i].sweep.frame(now);
  }

  tick() {
    this.update(false);
  }

  recolour() {
    for (const tile of this.tiles) tile.recolour(this.parts.palette);
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
