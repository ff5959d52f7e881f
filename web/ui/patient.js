// One patient: waveform on ECG paper, spectrogram under it on the same time axis, beats with their class, alarms.
// @ts-check
import { CarePanel } from "./care.js";
import { Chosen } from "./chosen.js";
import { h, mark, put, sign } from "./dom.js";
import { age, against, clock, countdown, kindName, rhythmName } from "./format.js";
import { Held, around, frozen } from "./held.js";
import { Latest } from "./latest.js";
import { LimitsPanel } from "./limits.js";
import { ackButton, stateText } from "./list.js";
import { Sweep, paper } from "./sweep.js";
import { T } from "./texts.js";
import { QUALITY } from "./vocabulary.js";
import { Trends } from "./trends.js";
import { View } from "./view.js";
import { RATE_KINDS, level } from "./ward.js";

const SPEEDS = [25, 50];
const GAINS = [5, 10, 20, null];

export class Patient extends View {
  /** @param {string} name channel @param {import("./view.js").Parts} parts */
  constructor(name, parts) {
    super(parts, parts.stays.bed(name));
    const { ward, link, acts, prefs, palette } = parts;
    this.name = name;
    this.ward = ward;
    this.acts = acts;
    this.prefs = prefs;
    this.palette = palette;
    /** @type {Sweep | null} */
    this.sweep = null;
    this.axisFor = "";
    this.changes = -1;
    this.root = h("div", { class: "patient" });
    /** @type {Held | null} */
    this.held = null;
    /** Settings that the limits shown are of. @type {string | undefined} */
    this.settled = undefined;
    /** Alarm whose strip the address asks for. */
    this.asked = new URLSearchParams(location.search).get("alarm");
    const redraw = () => (this.sweep ? this.alarms() : this.build());
    this.on(ward, "beds", redraw);
    this.on(ward, "alarms", redraw);
    this.on(acts, "change", redraw);
    this.on(ward, "settings", () => this.settings());
    this.on(ward, "refused", ({ detail }) => {
      if (detail.patient === name) put(this.refused, T.refusedChange(detail.note));
    });
    this.on(parts.stays, "change", () => this.who());
    this.refused = h("p", { class: "note", role: "alert" });
    link.watch([name], name);
    this.build();
  }

  close() {
    super.close();
    this.papers?.disconnect();
    this.trends?.close();
    this.sweep?.close();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.key === " " && !/** @type {Element} */ (event.target).closest("button, a, summary")) {
      this.freeze();
      return true;
    }
    const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
    if (!by || !this.chosen) return false;
    if (this.held) this.held.strip.step(by);
    else this.chosen.step(by);
    return true;
  }

  /** Hold the last seconds still, or go on. */
  freeze() {
    if (this.held) return this.release();
    const data = this.bed ? frozen(this.bed.trace) : null;
    if (data) this.hold({ ...data, lead: this.bed?.lead ?? "" }, T.frozen);
  }

  /** @param {import("./strip.js").StripData} data @param {string} title */
  hold(data, title) {
    this.held = new Held(data, title, this.name, this.parts, () => this.release());
    this.place?.replaceChildren(this.held.root);
    this.chosen?.root.replaceWith(this.held.beat.root);
    mark(this.root, "data-held", "");
    this.stop?.setAttribute("aria-pressed", "true");
  }

  release() {
    if (this.chosen) this.held?.beat.root.replaceWith(this.chosen.root);
    this.held = null;
    this.place?.replaceChildren();
    mark(this.root, "data-held", null);
    this.stop?.setAttribute("aria-pressed", "false");
  }

  /** Show the strip of the alarm that the address names, once it is known. */
  async showAsked() {
    const alarm = this.asked === null ? undefined : this.ward.alarms.get(this.asked);
    if (!alarm || !this.bed) return;
    this.asked = null;
    const title = T.stripOf(kindName(alarm.kind), clock(alarm.onset_ms));
    const data = await around(alarm, this.parts).catch(() => null);
    if (!this.open) return;
    // The recorder writes a little later than the page hears; what the page holds itself is there at once.
    const held = data ?? frozen(this.bed.trace);
    if (held) this.hold(held, title);
  }

  build() {
    const bed = this.ward.beds.get(this.name);
    if (!bed) {
      this.root.replaceChildren(h("p", { class: "empty" }, this.ward.synced ? T.unknownPatient(this.name) : T.loading));
      return;
    }
    this.bed = bed;
    const paperCanvas = h("canvas");
    const wave = h("canvas", { class: "wave" });
    const heat = h("canvas", { class: "heat" });
    this.rhythm = h("span", { class: "rhythm" });
    this.axis = h("div");
    this.hr = h("b");
    this.hrNote = h("span", { class: "unit" });
    this.vitalRhythm = h("span");
    this.vital = h("div", { class: "card vital" }, this.hr, this.vitalRhythm, this.hrNote);
    this.facts = /** @type {Record<string, HTMLElement>} */ ({});
    const facts = h("dl", { class: "card facts" });
    for (const [key, text] of [["pvc", T.pvc], ["signal", T.signal], ["lead", T.lead], ["device", T.device], ["battery", T.battery], ["heard", T.lastHeard]]) {
      this.facts[key] = h("dd");
      facts.append(h("dt", {}, text), this.facts[key]);
    }
    const chosen = (this.chosen = new Chosen(bed.trace, this.palette, this.may("monitor") ? this.parts.api : null));
    const pick = (/** @type {MouseEvent} */ event) =>
      this.sweep && chosen.near(this.sweep.sampleAt(event.clientX - wave.getBoundingClientRect().left));
    this.alarmList = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": T.patientAlarms });
    this.latest = new Latest(bed.trace, this.palette, (beat) => chosen.show(beat));
    this.stale = h("div", { class: "tile-stale", hidden: true }, h("span"));
    this.title = this.parts.stays.bed(this.name);
    this.label = h("h1");
    this.person = h("span", { class: "person" });
    this.off = h("span", { class: "tile-off", hidden: true });
    this.place = h("div", { class: "held-place" });
    this.stop = h("button", { class: "plain", type: "button", "aria-pressed": "false", onclick: () => this.freeze() }, T.freeze);
    this.quiet = h("button", { class: "plain", type: "button", hidden: !this.may("monitor"), onclick: () =>
      (bed.pauseUntil > this.ward.now() ? this.acts.resume(this.name) : this.acts.pause(this.name)) });
    const may = { monitor: this.may("monitor"), clinician: this.may("clinician") };
    this.trends = new Trends(this.name, this.parts);
    this.limits = new LimitsPanel(this.name, this.parts, may.clinician, (lines) => {
      if (!this.trends) return;
      this.trends.limits = lines;
      this.trends.draw();
    });
    this.care = new CarePanel(this.name, this.parts, may);
    this.root.replaceChildren(h("div", { class: "patient-live" },
      h("section", { class: "card strips" },
        h("div", { class: "strip-head" }, this.label, this.person, this.rhythm, this.off, h("span", { class: "grow" }), this.quiet, this.stop,
          this.choice(SPEEDS.map((v) => [v, `${v}`]), T.speed, () => this.prefs.speed, (v) => (this.prefs.speed = Number(v))),
          this.choice(GAINS.map((v) => [v, v === null ? T.gainAuto : `${v}`]), T.gain, () => this.prefs.gain, (v) => (this.prefs.gain = v))),
        h("div", { class: "strip", onclick: pick }, paperCanvas, wave, h("span", { class: "strip-name" }, T.wave), this.stale),
        h("div", { class: "strip heat-strip", onclick: pick }, heat, this.axis, h("span", { class: "strip-name" }, T.spectrogram)),
        this.place, this.latest.legend),
      h("aside", { class: "side", tabindex: "0", "aria-label": T.figures }, this.vital, facts, chosen.root,
        h("section", { class: "card block alarms" }, h("h2", {}, T.patientAlarms), this.alarmList),
        this.latest.root)),
      h("div", { class: "patient-more" }, this.trends.root, this.limits.root, this.care.root, this.refused));
    this.sweep = new Sweep(wave, bed.trace, this.palette,
      { speed: this.prefs.speed, gain: this.prefs.gain, all: true, ground: null }, heat);
    this.papers = new ResizeObserver(() => paper(paperCanvas, this.palette));
    this.papers.observe(paperCanvas);
    this.paperCanvas = paperCanvas;
    this.axisFor = "";
    this.changes = -1;
    this.who();
    this.settings();
    this.alarms();
    this.tick();
  }

  /** Who lies here. */
  who() {
    if (!this.label || !this.person) return;
    const { stays } = this.parts;
    put(this.label, stays.bed(this.name));
    put(this.person, stays.vacant(this.name) ? T.noPatient : stays.person(this.name));
    this.care?.draw();
  }

  /** What staff set for this bed. */
  settings() {
    const { bed } = this;
    if (!bed || !this.off) return;
    this.off.hidden = !bed.lethalOff.length;
    put(this.off, T.lethalOff(bed.lethalOff.map(kindName).join(", ")));
    const now = `${bed.profile} ${bed.settings}`;
    if (this.settled !== undefined && this.settled !== now) this.limits?.settled();
    this.settled = now;
  }

  /**
   * @template V
   * @param {[V, string][]} values @param {string} unit @param {() => V} get @param {(value: V) => void} set
   */
  choice(values, unit, get, set) {
    const buttons = values.map(([value, text]) => h("button", { type: "button", "aria-pressed": String(get() === value), onclick: () => {
      set(value);
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(values[i][0] === value)));
      if (this.sweep) {
        this.sweep.options.speed = this.prefs.speed;
        this.sweep.options.gain = this.prefs.gain;
        this.sweep.ranged = 0;
        this.sweep.life = -1;
        this.held?.redraw(this.prefs);
      }
    } }, text));
    return h("div", { class: "group" }, h("div", { class: "seg", role: "group", "aria-label": unit }, ...buttons), unit);
  }

  /** @param {number} now */
  frame(now) {
    this.sweep?.frame(now);
  }

  recolour() {
    if (!this.sweep || !this.paperCanvas) return;
    this.sweep.palette = this.palette;
    this.chosen?.show(this.chosen.beat ?? undefined);
    this.sweep.life = -1;
    this.held?.redraw(this.prefs);
    this.trends?.draw();
    paper(this.paperCanvas, this.palette);
    if (this.latest) this.latest.drawn = -1;
  }

  alarms() {
    const list = this.ward.byBed.get(this.name) ?? [];
    if (!this.alarmList) return;
    this.alarmList.replaceChildren(...(list.length ? list.map((alarm) =>
      h("div", { class: "al", "data-level": level(alarm), "data-presence": alarm.presence, "data-alarm": alarm.id },
        sign(level(alarm)),
        h("div", {}, h("a", { class: "al-name", href: `/patient/${encodeURIComponent(this.name)}?alarm=${encodeURIComponent(alarm.id)}`, title: T.open }, kindName(alarm.kind)),
          h("small", {}, [against(alarm), clock(alarm.onset_ms), stateText(alarm)].filter(Boolean).join(" · "))),
        ackButton(alarm, this.parts))) : [h("p", { class: "none" }, T.noPatientAlarms)]));
    this.showAsked();
    const worst = list.find((alarm) => alarm.presence !== "off");
    mark(this.root, "data-level", worst ? level(worst) : null);
    const clinical = list.find((alarm) => !alarm.technical && alarm.presence !== "off" && alarm.presence !== "latched");
    if (this.vital) mark(this.vital, "data-level", clinical && RATE_KINDS.has(clinical.kind) ? level(clinical) : null);
  }

  tick() {
    const { bed, ward } = this;
    if (!bed || !this.sweep || !this.hr || !this.vital || !this.stale || !this.hrNote || !this.facts) return;
    const since = ward.staleSince(bed);
    mark(this.root, "data-stale", since === null ? null : "");
    this.stale.hidden = since === null;
    if (since !== null) put(/** @type {Node} */ (this.stale.firstChild), since ? T.stale(clock(since)) : T.staleNever);
    const rate = ward.rate(bed);
    mark(this.vital, "data-unknown", rate.value === null ? "" : null);
    put(this.hr, rate.value === null ? "--" : String(rate.value));
    put(this.hrNote, rate.value !== null ? T.bpm : rate.age > 2000 && since === null ? T.noBeat(age(rate.age)) : T.hrUnknown);
    const silent = bed.pauseUntil - ward.now();
    if (this.quiet) put(this.quiet, silent > 0 ? T.silentResume(countdown(silent)) : T.silence);
    this.trends?.tick();
    put(this.facts.heard, bed.newestMs ? clock(bed.newestMs) : "–");
    if (this.changes !== bed.changes) {
      this.changes = bed.changes;
      const rhythm = rhythmName(ward.rhythm(bed)) + (bed.rhythmMs ? `, ${T.since(clock(bed.rhythmMs))}` : "");
      put(/** @type {Node} */ (this.rhythm), rhythm);
      put(/** @type {Node} */ (this.vitalRhythm), rhythmName(ward.rhythm(bed)));
      put(this.facts.pvc, `${bed.pvc}${T.perMin}`);
      put(this.facts.battery, bed.battery < 0 ? "–" : `${bed.battery} %`);
      put(this.facts.signal, QUALITY[bed.quality] ?? (bed.quality || "–"));
      put(this.facts.lead, bed.lead || "–");
      put(this.facts.device, bed.device || "–");
    }
    this.latest?.tick();
    this.hertz();
  }

  hertz() {
    const ring = this.bed?.trace.columns;
    const wanted = ring ? String(ring.top_hz) : "";
    if (!ring || wanted === this.axisFor || !this.axis) return;
    this.axisFor = wanted;
    this.axis.replaceChildren(...[10, 20, 30, 40].filter((hz) => hz < ring.top_hz * 0.97).map((hz) => {
      const label = h("span", { class: "hertz" }, `${hz} Hz`);
      label.style.top = `${(1 - hz / ring.top_hz) * 100}%`;
      return label;
    }));
  }
}
