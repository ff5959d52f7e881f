// The field's words: alarms, rhythms, beats, qualities, limits, roles; as staff read them.
// @ts-check

/** @typedef {{name: string, short: string, metric?: string, unit?: string, sign?: string, digits?: number}} KindText */

/** @type {Record<string, KindText>} */
export const KINDS = {
  ASYSTOLE: { name: "Asystole", short: "Asystole" },
  VFIB: { name: "Ventricular fibrillation", short: "VF" },
  VTACH: { name: "Ventricular tachycardia", short: "VT", metric: "Rate", unit: "/min", sign: ">" },
  EXTREME_TACHY: { name: "Extreme tachycardia", short: "Extreme tachy", metric: "HR", sign: ">" },
  EXTREME_BRADY: { name: "Extreme bradycardia", short: "Extreme brady", metric: "HR", sign: "<" },
  PAUSE: { name: "Pause", short: "Pause", metric: "Pause", unit: " s", sign: ">", digits: 1 },
  NSVT: { name: "Run of ventricular beats", short: "VT run", metric: "Rate", unit: "/min", sign: ">" },
  VENT_RHYTHM: { name: "Ventricular rhythm", short: "Vent. rhythm" },
  AFIB: { name: "Atrial fibrillation", short: "AF" },
  TACHY: { name: "Heart rate high", short: "HR high", metric: "HR", sign: ">" },
  BRADY: { name: "Heart rate low", short: "HR low", metric: "HR", sign: "<" },
  SVT: { name: "Supraventricular tachycardia", short: "SVT", metric: "Rate", unit: "/min", sign: ">" },
  PVC_RATE: { name: "Frequent PVCs", short: "PVCs", metric: "PVC", unit: "/min", sign: ">" },
  PVC_PAIR: { name: "PVC pair", short: "PVC pair" },
  BIGEMINY: { name: "Bigeminy", short: "Bigeminy" },
  TRIGEMINY: { name: "Trigeminy", short: "Trigeminy" },
  R_ON_T: { name: "R on T", short: "R on T" },
  MULTIFORM: { name: "Multiform PVCs", short: "Multiform" },
  PATIENT_BUTTON: { name: "Patient call button", short: "Call button" },
  LEADS_OFF: { name: "Leads off", short: "Leads off" },
  NO_DATA: { name: "No data from device", short: "No data" },
  NOISY: { name: "Signal noisy", short: "Noisy" },
  BATTERY: { name: "Battery low", short: "Battery", metric: "Battery", unit: " %", sign: "<" },
};

/** @type {Record<string, string>} */
export const RHYTHMS = {
  N: "Sinus or other",
  AFIB: "Atrial fibrillation",
  AFL: "Atrial flutter",
  VT: "Ventricular tachycardia",
  VFL: "Ventricular fibrillation",
  VF: "Ventricular fibrillation",
  B: "Bigeminy",
  T: "Trigeminy",
  ASYS: "Asystole",
  NOISE: "Rhythm not readable",
  BLIND: "Rhythm not judged",
};

/** @type {Record<string, {letter: string, name: string, token: string}>} */
export const BEATS = {
  N: { letter: "N", name: "Normal", token: "--beat-N" },
  L: { letter: "L", name: "Left bundle branch block", token: "--beat-L" },
  R: { letter: "R", name: "Right bundle branch block", token: "--beat-R" },
  A: { letter: "A", name: "Premature atrial", token: "--beat-A" },
  V: { letter: "V", name: "Premature ventricular", token: "--beat-V" },
  F: { letter: "F", name: "Fusion", token: "--beat-F" },
  "/": { letter: "P", name: "Paced", token: "--beat-P" },
  Q: { letter: "?", name: "Uncertain", token: "--beat-Q" },
};

/** Classes that are marked on the wall. */
export const ECTOPIC = new Set(["A", "V", "F"]);

/** @type {Record<string, string>} */
export const QUALITY = {
  good: "Signal good",
  noisy: "Signal noisy",
  lead_off: "Leads off",
  missing: "Signal has gaps",
  no_data: "No data",
};

export const PRIORITY = ["Technical", "Low", "Medium", "High"];
/** @type {Record<string, string>} */
export const PRESENCE = { on: "Active", latched: "Over, not acknowledged", ack: "Acknowledged", off: "Over" };

/** Profiles of limits. @type {Record<string, string>} */
export const PROFILES = { adult: "Adult", athlete: "Athlete", elderly: "Elderly", af: "AF patient" };

/** What a patient may agree to. @type {Record<string, string>} */
export const PURPOSES = { monitoring: "Keeping the recording", training: "Training of the models", research: "Research" };

/** What an alarm may be held to be, and its key. @type {Record<string, {text: string, key: string}>} */
export const VERDICTS = { true: { text: "True", key: "T" }, false: { text: "False", key: "F" }, artefact: { text: "Artefact", key: "A" } };

/** Limits that staff set, in words. @type {Record<string, {text: string, unit: string}>} */
export const LIMITS = {
  asystole_s: { text: "no beat for", unit: "s" },
  verdict_s: { text: "seen for", unit: "s" },
  vtach_rate: { text: "rate from", unit: "/min" },
  vtach_beats: { text: "beats in a row", unit: "" },
  extreme_tachy: { text: "above", unit: "/min" },
  extreme_brady: { text: "below", unit: "/min" },
  pause_s: { text: "RR over", unit: "s" },
  nsvt_beats: { text: "beats in a row", unit: "" },
  vent_rhythm_beats: { text: "more beats than", unit: "" },
  afib_s: { text: "seen for", unit: "s" },
  afib_with_rate: { text: "only with a rate outside its limits", unit: "" },
  tachy: { text: "above", unit: "/min" },
  brady: { text: "below", unit: "/min" },
  rate_s: { text: "for", unit: "s" },
  svt_rate: { text: "rate from", unit: "/min" },
  svt_beats: { text: "beats in a row", unit: "" },
  pvc_per_min: { text: "above", unit: "/min" },
  cycles: { text: "cycles", unit: "" },
  r_on_t_ms: { text: "within", unit: "ms" },
  multiform_s: { text: "two shapes in", unit: "s" },
  no_data_s: { text: "after", unit: "s" },
  noisy_s: { text: "noisy for", unit: "s" },
  noisy_of_s: { text: "out of", unit: "s" },
  battery: { text: "below", unit: "%" },
};

/** @type {{level: "high" | "medium" | "low" | "technical", text: string}[]} */
export const LEVELS = [
  { level: "high", text: "High: act at once. Red, flashes twice a second, ten pulses every 10 s." },
  { level: "medium", text: "Medium: act soon. Yellow, flashes slowly, three pulses every 20 s." },
  { level: "low", text: "Low: look when you can. Cyan, steady, one pulse every 30 s." },
  { level: "technical", text: "Technical: the equipment, not the patient. Blue-grey, dashed frame; says what it makes blind." },
];

/** @type {Record<string, string>} */
export const ROLES = { viewer: "Viewer: sees", monitor: "Monitor: acknowledges, judges", clinician: "Clinician: limits, patients", admin: "Admin: everything" };

/** Ways to tell a contact. @type {Record<string, string>} */
export const CHANNELS = { webhook: "Webhook", email: "Mail", mqtt: "Device topic" };

/** Kinds of data that are kept for a time. @type {Record<string, string>} */
export const KEPT = { recordings_days: "Recordings", events_days: "Events and alarms", evidence_days: "Evidence of alarms", audit_days: "Trail of acts", stays_days: "Stays" };

/** How far a message to a contact got. @type {Record<string, string>} */
export const DELIVERED = { waiting: "waiting", sent: "sent", given_up: "not reached", settled: "acknowledged before" };

/** Acts of the trail. @type {Record<string, string>} */
export const ACTS = {
  "alarm.ack": "Alarm acknowledged", "alarm.ack_all": "All alarms of a patient acknowledged",
  "alarm.judge": "Alarm judged", "alarm.limits": "Limits set", "alarm.profile": "Profile set",
  "alarm.report": "Report of an alarm taken", "audio.pause": "Sound paused", "audio.resume": "Sound on again",
  "audit.trim": "Old rows of the trail deleted", "backup.restored": "Backup put back",
  "beat.label": "Beat called otherwise", consent: "Consent changed", "contacts.set": "Contacts changed",
  "device.add": "Device enrolled", "device.revoke": "Device locked out", "device.rotate": "New secret of a device",
  "note.add": "Note written", "patient.admit": "Patient admitted", "patient.discharge": "Patient discharged",
  "patient.seen": "Patient looked at", "patient.transfer": "Patient transferred",
  "person.access": "All data of a person taken", "person.add": "Person added",
  "person.erase": "Erasure of a person ordered", "person.erased": "Person erased", "person.update": "Person changed",
  "recording.export": "Recording exported", "recording.report": "Report of a recording taken",
  retention: "Retention changed", "session.begin": "Logged in", "session.end": "Logged out",
  "session.refused": "Log-in refused", "token.add": "Token made", "token.remove": "Token removed",
  "user.add": "Account added", "user.change": "Account changed", "user.password": "Password changed",
  "user.remove": "Account removed",
};
