// A strip held still on a patient's page: frozen by a person, or cut round an alarm; with calipers and its beats.
// @ts-check
import { part, query } from "./api.js";
import { Calipers } from "./calipers.js";
import { h } from "./dom.js";
import { clock, kindShort } from "./format.js";
import { HeldBeat } from "./heldbeat.js";
import { Strip } from "./strip.js";
import { T } from "./texts.js";
import { level } from "./ward.js";

const FROZEN_S = 12;
const AROUND_MS = 10_000;
const LONGEST_MS = 60_000;

/** The last seconds of a live trace. @param {import("./trace.js").Trace} trace @returns {import("./strip.js").StripData | null} */
export function frozen(trace) {
  const end = Math.floor(trace.head);
  const first = Math.max(trace.start, end - FROZEN_S * trace.rate);
  if (end <= first) return null;
  const at = (/** @type {number} */ index) => trace.anchor.ms + ((index - trace.anchor.index) * 1000) / trace.rate;
  const ring = trace.columns;
  let columns = null;
  if (ring) {
    const from = Math.max(ring.start, Math.ceil(first / ring.hop));
    const to = Math.min(ring.end, Math.floor(end / ring.hop));
    const data = new Uint8Array(Math.max(0, to - from) * ring.bins);
    for (let c = from; c < to; c++) data.set(trace.column(c) ?? [], (c - from) * ring.bins);
    columns = { data, from_ms: at(from * ring.hop), column_ms: (ring.hop * 1000) / trace.rate, bins: ring.bins };
  }
  return {
    from_ms: at(first), fs: trace.rate, lead: "", columns,
    mv: Float32Array.from({ length: end - first }, (_, i) => trace.at(first + i)),
    beats: trace.beats.filter((beat) => beat.index >= first && beat.index < end),
  };
}

/** Cut of the recording round an alarm. @param {import("./ward.js").Alarm} alarm @param {import("./view.js").Parts} parts @returns {Promise<import("./strip.js").StripData>} */
export async function around(alarm, parts) {
  const from = Math.max(alarm.onset_ms, alarm.raised_ms - LONGEST_MS) - AROUND_MS;
  const to = Math.min(alarm.raised_ms + AROUND_MS, Math.round(parts.ward.now()));
  return { ...(await recorded(alarm.patient, from, to, parts)),
    marks: [{ ms: alarm.onset_ms, text: kindShort(alarm.kind), level: level(alarm) }] };
}

/** @param {string} patient @param {number} from @param {number} to @param {import("./view.js").Parts} parts @returns {Promise<import("./strip.js").StripData>} */
export async function recorded(patient, from, to, parts) {
  const cut = await parts.api.get(`/api/patients/${part(patient)}/strip${query({ from: Math.round(from), to: Math.round(to) })}`);
  if (!cut.mv.length) throw new Error(T.notRecorded);
  return { from_ms: cut.from_ms, fs: cut.fs, lead: cut.leads[0] ?? "", mv: cut.mv[0], beats: cut.beats,
    marks: cut.alarms.map((/** @type {any} */ alarm) => ({ ms: alarm.ms, text: kindShort(alarm.kind), level: level(alarm) })) };
}

export class Held {
  /**
   * @param {import("./strip.js").StripData} data @param {string} title @param {string} patient
   * @param {import("./view.js").Parts} parts @param {() => void} release
   */
  constructor(data, title, patient, parts, release) {
    this.strip = new Strip(data, parts.palette, { speed: parts.prefs.speed, gain: parts.prefs.gain, heat: true });
    this.calipers = new Calipers(this.strip);
    this.beat = new HeldBeat(data, parts, patient);
    this.strip.onbeat = (beat) => this.beat.show(beat);
    this.root = h("section", { class: "held-panel", "aria-label": title },
      h("div", { class: "held-head" }, h("b", {}, title), h("span", { class: "note" }, `${clock(data.from_ms)} · ${data.lead}`), h("span", { class: "grow" }),
        h("button", { class: "act", type: "button", onclick: release }, T.backToLive)),
      this.strip.root, this.calipers.tools);
  }

  /** Options or colours changed. @param {import("./prefs.js").Prefs} prefs */
  redraw(prefs) {
    this.strip.options.speed = prefs.speed;
    this.strip.options.gain = prefs.gain;
    this.strip.draw();
    this.calipers.show();
  }
}
