// What the page knows of the ward: beds, alarms, and how fresh all of it is. A fold over the server's messages.
// @ts-check
import { natural } from "./format.js";
import { Trace } from "./trace.js";

/**
 * @typedef {{id: string, patient: string, kind: string, priority: number, presence: string, revision: number,
 *   onset_ms: number, raised_ms: number, changed_ms: number, cleared_ms: number | null, acked_by: string | null,
 *   acked_ms: number | null, value: number | null, limit: number | null, detail: string, technical: boolean,
 *   lethal: boolean, announced_ms: number, escalation: number, silent_until_ms: number, reason: string, retrospective: boolean}} Alarm
 * @typedef {"high" | "medium" | "low" | "technical"} Level
 */

/** A trace is stale after this, ms (since new samples came) or when its newest sample is older than LATE_MS. */
export const STALE_MS = 2000;
const LATE_MS = 5000;
/** A heart rate whose beat is older than this is not shown, ms. */
const HR_MS = 5000;

/** Signal in which no rhythm can be judged. */
const BLIND = new Set(["lead_off", "no_data", "missing"]);

export class Bed {
  /** @param {string} name */
  constructor(name) {
    this.name = name;
    this.trace = new Trace();
    this.hr = 0;
    this.hrMs = 0;
    this.rhythm = "";
    this.rhythmMs = 0;
    this.pvc = 0;
    this.quality = "";
    this.lead = "";
    this.device = "";
    this.note = "";
    /** Charge of the device, percent; -1 before it said any. */
    this.battery = -1;
    this.profile = "";
    /** When limits or kinds last changed. */
    this.settings = 0;
    /** Lethal alarms that somebody switched off: shown for as long as they are. @type {string[]} */
    this.lethalOff = [];
    /** Audio pause of this bed: its end in server time, 0 for none, and who began it. */
    this.pauseUntil = 0;
    this.pauseBy = "";
    /** Discharged, and nobody admitted since. */
    this.vacant = false;
    /** When new samples last came (page clock), and the wall time of the newest one. */
    this.arrived = -Infinity;
    this.newestMs = 0;
    /** Counts changes, so that a tile writes only what is new. */
    this.changes = 0;
  }
}

/** @param {Alarm} alarm @returns {Level} */
export function level(alarm) {
  if (alarm.technical) return "technical";
  return alarm.priority >= 3 ? "high" : alarm.priority === 2 ? "medium" : "low";
}

/** Alarms that colour the heart rate. */
export const RATE_KINDS = new Set(["TACHY", "BRADY", "EXTREME_TACHY", "EXTREME_BRADY", "VTACH", "SVT", "NSVT", "ASYSTOLE", "VFIB"]);

/** Waits for somebody: on, or over without having been seen. @param {Alarm} alarm */
export const waits = (alarm) => alarm.presence === "on" || alarm.presence === "latched";

/** Most urgent first: unseen before seen, clinical before technical at the same priority, then the newest. @param {Alarm} a @param {Alarm} b */
export function urgency(a, b) {
  return (
    Number(waits(b)) - Number(waits(a)) ||
    Number(b.presence !== "off") - Number(a.presence !== "off") ||
    b.priority - a.priority ||
    Number(a.technical) - Number(b.technical) ||
    Number(b.lethal) - Number(a.lethal) ||
    b.raised_ms - a.raised_ms
  );
}

export class Ward extends EventTarget {
  constructor() {
    super();
    /** @type {Map<string, Bed>} */
    this.beds = new Map();
    /** @type {Map<string, Alarm>} */
    this.alarms = new Map();
    this.user = "";
    this.name = "";
    this.synced = false;
    /** Server clock minus page clock, ms: the largest seen lately, which is that of the fastest message. */
    this.offset = 0;
    this.lagMs = 0;
    this.feedAgeMs = 0;
    this.busLagMs = 0;
    this.dropped = 0;
    /** @type {Map<string, Alarm> | null} */
    this.incoming = null;
    /** @type {Map<string, Alarm[]>} */
    this.byBed = new Map();
  }

  /** Server's wall clock, ms. */
  now() {
    return Date.now() + this.offset;
  }

  /** @param {string} name */
  bed(name) {
    let bed = this.beds.get(name);
    if (!bed) {
      bed = new Bed(name);
      this.beds.set(name, bed);
    }
    return bed;
  }

  /** @param {string} what */
  tell(what) {
    this.dispatchEvent(new Event(what));
  }

  /** A new connection begins: its clock may be another server's. */
  begin() {
    this.offset = 0;
    this.lagMs = 0;
    this.clocked = false;
  }

  /** @param {{type: string, [field: string]: any}} m */
  apply(m) {
    switch (m.type) {
      case "wave": return this.wave(m);
      case "beat": return this.bed(m.patient).trace.beat(/** @type {any} */ (m));
      case "cols": return this.bed(m.patient).trace.spectrogram(/** @type {any} */ (m));
      case "alarm": return this.alarm(/** @type {any} */ (m));
      case "clock": return this.clock(m);
      case "rhythm": {
        const bed = this.bed(m.patient);
        bed.rhythm = m.code;
        bed.rhythmMs = m.ms;
        bed.changes++;
        return;
      }
      case "status": {
        const bed = this.bed(m.patient);
        bed.quality = m.quality;
        bed.lead = m.lead;
        bed.device = m.device;
        bed.note = m.note;
        bed.battery = m.battery;
        bed.changes++;
        return;
      }
      case "settings": {
        const bed = this.bed(m.patient);
        const turned = bed.vacant !== m.vacant || m.reason === "admit" || m.reason === "discharge";
        bed.profile = m.profile;
        if (["limits", "profile", "admit", "discharge"].includes(m.reason)) bed.settings = m.ms;
        bed.lethalOff = m.lethal_off;
        bed.pauseUntil = m.pause_until_ms;
        bed.pauseBy = m.pause_by;
        bed.vacant = m.vacant;
        bed.changes++;
        this.tell("settings");
        if (turned) this.tell("turnover");
        if (m.reason === "refused") this.dispatchEvent(new CustomEvent("refused", { detail: m }));
        return;
      }
      case "hello":
        this.user = m.user;
        this.name = m.ward;
        this.clock({ ...m, feed_age_ms: 0, bus_lag_ms: 0, dropped: 0 });
        return;
      case "reset":
        this.incoming = new Map();
        this.members(m.patients);
        return;
      case "beds":
        this.members(m.patients);
        this.tell("beds");
        return;
      case "synced":
        this.alarms = this.incoming ?? this.alarms;
        this.incoming = null;
        this.synced = true;
        this.index();
        this.tell("beds");
        this.tell("alarms");
    }
  }

  /** Beds that the server knows; one that it no longer knows stays, and looks stale. @param {string[]} names */
  members(names) {
    for (const name of [...names].sort(natural)) this.bed(name);
  }

  /** @param {any} m */
  clock(m) {
    const offset = m.server_ms - Date.now();
    // A message can only be late, so the largest offset is nearest to the truth; it fades slowly for clocks that drift.
    this.offset = this.clocked ? Math.max(offset, this.offset - 2) : offset;
    this.clocked = true;
    this.lagMs = Math.max(0, this.offset - offset);
    this.feedAgeMs = m.feed_age_ms;
    this.busLagMs = m.bus_lag_ms;
    this.dropped = m.dropped;
  }

  /** @param {any} m */
  wave(m) {
    const bed = this.bed(m.patient);
    if (!bed.trace.push(m)) return;
    const now = this.now();
    bed.newestMs = m.ms + ((m.samples.byteLength >> 1) * 1000) / m.rate;
    // A stretch out of the snapshot is as old as its samples, not as its arrival.
    bed.arrived = Math.min(now, Math.max(bed.arrived, now - Math.max(0, now - bed.newestMs - LATE_MS + STALE_MS)));
    bed.hr = m.hr;
    bed.hrMs = m.hr_ms;
    bed.rhythm = m.rhythm || bed.rhythm;
    bed.pvc = m.pvc_min;
    bed.quality = m.quality;
    bed.lead = m.lead;
    bed.changes++;
  }

  /** @param {Alarm & {type: string}} m */
  alarm(m) {
    const target = this.incoming ?? this.alarms;
    const known = target.get(m.id);
    if (known && known.revision >= m.revision) return;
    target.set(m.id, m);
    if (this.incoming) return;
    this.index();
    this.tell("alarms");
  }

  index() {
    this.byBed.clear();
    for (const alarm of this.alarms.values()) {
      const list = this.byBed.get(alarm.patient);
      if (list) list.push(alarm);
      else this.byBed.set(alarm.patient, [alarm]);
    }
    for (const list of this.byBed.values()) list.sort(urgency);
  }

  /** Open alarms, most urgent first. */
  open() {
    return [...this.alarms.values()].filter((alarm) => alarm.presence !== "off").sort(urgency);
  }

  /** Open alarms of a bed, most urgent first. @param {string} name */
  of(name) {
    return (this.byBed.get(name) ?? []).filter((alarm) => alarm.presence !== "off");
  }

  /** Audio pauses that run: how many beds, and the latest end. */
  pauses() {
    const now = this.now();
    const ends = [...this.beds.values()].map((bed) => bed.pauseUntil).filter((end) => end > now);
    return { count: ends.length, left: ends.length ? Math.max(...ends) - now : 0 };
  }

  /** Since when a bed is stale, wall time in ms; null while it is fresh. @param {Bed} bed */
  staleSince(bed) {
    const now = this.now();
    if (bed.arrived === -Infinity) return 0;
    return now - bed.arrived > STALE_MS || now - bed.newestMs > LATE_MS ? bed.newestMs : null;
  }

  /** Rhythm to show; none is shown where none can be judged. @param {Bed} bed */
  rhythm(bed) {
    return BLIND.has(bed.quality) ? "BLIND" : bed.rhythm;
  }

  /** Heart rate to show: the value, or null with the age of the last beat. @param {Bed} bed */
  rate(bed) {
    const age = bed.hrMs ? this.now() - bed.hrMs : 0;
    const fresh = bed.hr > 0 && age < HR_MS && this.staleSince(bed) === null;
    return { value: fresh ? Math.round(bed.hr) : null, age };
  }
}
