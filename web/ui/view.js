// What every page is: an element, a title, and what the loop asks of it.
// @ts-check

/**
 * @typedef {object} Parts what the pages share
 * @property {import("./ward.js").Ward} ward
 * @property {import("./link.js").Link} link
 * @property {import("./acts.js").Acts} acts
 * @property {import("./api.js").Api} api
 * @property {import("./prefs.js").Prefs} prefs
 * @property {import("./palette.js").Palette} palette
 * @property {import("./signals.js").Signals} signals
 * @property {import("./stays.js").Stays} stays
 * @property {{user: string, role: string, zone: string, zone_minutes: number}} session
 * @property {(path: string) => void} go
 */

const RANK = ["viewer", "monitor", "clinician", "admin"];

/** Whether a role covers another. @param {string} role @param {string} wanted */
export const covers = (role, wanted) => RANK.indexOf(role) >= RANK.indexOf(wanted);

export class View {
  /** @param {Parts} parts @param {string} title */
  constructor(parts, title) {
    this.parts = parts;
    this.title = title;
    /** @type {HTMLElement} */
    this.root = document.createElement("div");
    this.open = true;
    /** @type {(() => void)[]} */
    this.undo = [];
  }

  /** Whether the user may do what needs a role. @param {string} role */
  may(role) {
    return covers(this.parts.session.role, role);
  }

  /** Listen until the page is left. @param {EventTarget} target @param {string} what @param {(event: any) => void} act */
  on(target, what, act) {
    target.addEventListener(what, act);
    this.undo.push(() => target.removeEventListener(what, act));
  }

  close() {
    this.open = false;
    for (const act of this.undo) act();
  }

  /** Each frame of the display. @param {number} _now ms */
  frame(_now) {}

  /** Twice a second. */
  tick() {}

  /** The theme changed. */
  recolour() {}

  /** A key that no field took; true when the page used it. @param {KeyboardEvent} _event @returns {boolean} */
  key(_event) {
    return false;
  }
}
