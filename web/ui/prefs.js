// What a user chose, kept in this browser for each user.
// @ts-check

export class Prefs {
  /** @param {string} user */
  constructor(user) {
    this.key = `rhythmwatch:${user}`;
    /** @type {{density?: number, places?: string[], theme?: string, speed?: number, gain?: number | null, ward?: string,
     *   pxPerMm?: number}} */
    this.kept = {};
    try {
      this.kept = JSON.parse(localStorage.getItem(this.key) ?? "{}");
    } catch {
      // Unreadable or forbidden: the page works with its defaults.
    }
  }

  /** @param {Record<string, unknown>} change */
  keep(change) {
    Object.assign(this.kept, change);
    try {
      localStorage.setItem(this.key, JSON.stringify(this.kept));
    } catch {
      // A full or forbidden store costs the memory of a choice, nothing else.
    }
  }

  /** Beds a page, 0 = automatic. */
  get density() {
    return this.kept.density ?? 0;
  }
  set density(density) {
    this.keep({ density });
  }

  /** Beds in the order of their places. */
  get places() {
    return this.kept.places ?? [];
  }
  set places(places) {
    this.keep({ places });
  }

  /** Ward whose beds are shown; empty for all. */
  get ward() {
    return this.kept.ward ?? "";
  }
  set ward(ward) {
    this.keep({ ward });
  }

  /** CSS pixels of a millimetre on this screen; null before it was calibrated. */
  get pxPerMm() {
    return this.kept.pxPerMm ?? null;
  }
  set pxPerMm(pxPerMm) {
    this.keep({ pxPerMm });
  }

  get theme() {
    return this.kept.theme ?? "dark";
  }
  set theme(theme) {
    this.keep({ theme });
  }

  /** mm/s */
  get speed() {
    return this.kept.speed ?? 25;
  }
  set speed(speed) {
    this.keep({ speed });
  }

  /** mm/mV, null = automatic */
  get gain() {
    return this.kept.gain === undefined ? 10 : this.kept.gain;
  }
  set gain(gain) {
    this.keep({ gain });
  }
}
