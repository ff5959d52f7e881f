// One bed on the wall.
// @ts-check
import { h, mark, put, sign } from "./dom.js";
import { age, against, clock, countdown, kindName, kindShort, rhythmName } from "./format.js";
import { Sweep } from "./sweep.js";
import { T } from "./texts.js";
import { QUALITY } from "./vocabulary.js";
import { RATE_KINDS, level, waits } from "./ward.js";

export class Tile {
  /**
   * @param {import("./ward.js").Bed} bed
   * @param {import("./ward.js").Ward} ward
   * @param {import("./palette.js").Palette} palette
   * @param {import("./stays.js").Stays} stays
   */
  constructor(bed, ward, palette, stays) {
    this.bed = bed;
    this.ward = ward;
    this.stays = stays;
    this.label = h("b");
    this.person = h("span", { class: "tile-name" });
    this.off = h("span", { class: "tile-off", hidden: true });
    this.silent = h("span", { class: "tile-silent", hidden: true });
    this.hr = h("b");
    this.unit = h("small");
    this.rhythm = h("div", { class: "tile-rhythm" });
    this.alarm = h("div", { class: "tile-alarm", hidden: true });
    this.tech = h("div", { class: "tile-tech", hidden: true });
    this.stale = h("div", { class: "tile-stale", hidden: true }, h("span"));
    this.pvc = h("span");
    this.signal = h("span");
    this.battery = h("span");
    this.heard = h("span");
    const canvas = h("canvas");
    this.root = h("a", { class: "tile", href: `/patient/${encodeURIComponent(bed.name)}`, "data-bed": bed.name },
      h("div", { class: "tile-head" },
        h("div", { class: "tile-who" }, h("div", { class: "tile-bed" }, this.label, this.person), this.rhythm, this.alarm),
        h("div", { class: "tile-hr" }, this.hr, this.unit)),
      h("div", { class: "tile-wave" }, canvas, this.tech, this.stale),
      h("div", { class: "tile-marks" }, this.silent, this.off),
      h("div", { class: "tile-foot" }, this.pvc, this.signal, this.battery, this.heard));
    this.item = h("div", { class: "cell", role: "listitem" }, this.root);
    this.sweep = new Sweep(canvas, bed.trace, palette, { speed: 25, gain: null, all: false, ground: "" });
    this.shown = "";
    this.changes = -1;
  }

  close() {
    this.sweep.close();
  }

  /** @param {import("./palette.js").Palette} palette */
  recolour(palette) {
    this.sweep.palette = palette;
    this.sweep.life = -1;
  }

  /** Write what changed. @param {boolean} alarms whether alarms may have changed */
  update(alarms) {
    const { bed, ward } = this;
    if (alarms) this.alarms();
    const since = ward.staleSince(bed);
    mark(this.root, "data-stale", since === null ? null : "");
    this.stale.hidden = since === null;
    if (since !== null) put(/** @type {Node} */ (this.stale.firstChild), since ? T.stale(clock(since)) : T.staleNever);
    const rate = ward.rate(bed);
    mark(this.root, "data-unknown", rate.value === null ? "" : null);
    put(this.hr, rate.value === null ? "--" : String(rate.value));
    put(this.unit, rate.value !== null ? T.bpm : rate.age > 2000 && since === null ? T.noBeat(age(rate.age)) : T.hrUnknown);
    const heard = ward.now() - bed.newestMs;
    const silent = bed.pauseUntil - ward.now();
    this.silent.hidden = silent <= 0;
    if (silent > 0) put(this.silent, T.silent(countdown(silent)));
    put(this.heard, !bed.newestMs ? "" : since === null ? T.heardNow : T.heard(age(heard)));
    if (this.changes === bed.changes) return;
    this.changes = bed.changes;
    this.who();
    this.off.hidden = !bed.lethalOff.length;
    put(this.off, T.lethalOff(bed.lethalOff.map(kindShort).join(", ")));
    put(this.rhythm, rhythmName(ward.rhythm(bed)));
    put(this.pvc, `${T.pvc} ${bed.pvc}${T.perMin}`);
    put(this.battery, bed.battery < 0 ? "" : `${T.battery} ${bed.battery} %`);
    put(this.signal, [QUALITY[bed.quality] ?? bed.quality, bed.lead].filter(Boolean).join(" · "));
    this.signal.className = bed.quality === "good" || bed.quality === "" ? "" : "warn";
  }

  /** Who lies here. */
  who() {
    const vacant = this.stays.vacant(this.bed.name);
    put(this.label, this.stays.bed(this.bed.name));
    put(this.person, vacant ? T.noPatient : this.stays.person(this.bed.name));
    mark(this.root, "data-vacant", vacant ? "" : null);
    this.name();
  }

  /** What a screen reader says of the tile. */
  name() {
    const open = this.ward.of(this.bed.name);
    mark(this.root, "aria-label", [this.label.textContent, this.person.textContent, ...open.map((alarm) => `${kindName(alarm.kind)} ${against(alarm)}`.trim()),
      this.off.hidden ? "" : this.off.textContent].filter(Boolean).join(", "));
  }

  alarms() {
    const open = this.ward.of(this.bed.name);
    // Technical never hides clinical: each has its own place.
    const clinical = open.find((alarm) => !alarm.technical);
    const technical = open.find((alarm) => alarm.technical);
    const worst = clinical ?? technical;
    const shown = open.map((alarm) => `${alarm.id} ${alarm.revision}`).join();
    if (shown === this.shown) return;
    this.shown = shown;
    mark(this.root, "data-level", worst ? level(worst) : null);
    const shade = worst && waits(worst) ? level(worst) : "";
    this.ground(shade === "high" || shade === "medium" ? shade : "");
    mark(this.root, "data-on", worst?.presence === "on" ? "" : null);
    mark(this.root, "data-seen", worst && !waits(worst) ? "" : null);
    const rate = clinical && RATE_KINDS.has(clinical.kind) && clinical.presence !== "latched" ? level(clinical) : null;
    mark(this.root, "data-hr-level", rate);
    this.alarm.hidden = !clinical;
    if (clinical) {
      const value = against(clinical);
      const end = clinical.presence === "latched" ? ` · ${T.overLatched}` : clinical.presence === "ack" ? " ✓" : "";
      this.alarm.replaceChildren(sign(level(clinical)), 
        h("span", { class: "full" }, (value && clinical.kind !== "VTACH" ? value : kindName(clinical.kind)) + end),
        h("span", { class: "short" }, kindShort(clinical.kind) + (clinical.presence === "ack" ? " ✓" : "")));
    }
    this.tech.hidden = !technical;
    if (technical) {
      const blind = technical.kind === "LEADS_OFF" ? ` · ${T.blindShort}` : "";
      this.tech.replaceChildren(sign("technical"),
        h("span", {}, kindShort(technical.kind) + (technical.presence === "ack" ? " ✓" : "")),
        ...(blind ? [h("span", { class: "blind" }, blind)] : []));
    }
    this.name();
  }

  /** Ground of the waveform, as that of the tile. @param {string} shade */
  ground(shade) {
    if (this.sweep.options.ground === shade) return;
    this.sweep.options.ground = shade;
    this.sweep.life = -1;
  }
}
