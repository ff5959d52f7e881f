// Times, ages and values as staff read them.
// @ts-check
import { KINDS, RHYTHMS } from "./vocabulary.js";

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DATED = new Intl.DateTimeFormat("en-GB", { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** HH:MM:SS, with the date where it isn't today. @param {number} ms */
export function clock(ms) {
  const date = new Date(ms);
  return date.toDateString() === new Date().toDateString() ? CLOCK.format(date) : DATED.format(date);
}

/** HH:MM:SS. @param {number} ms */
export const time = (ms) => CLOCK.format(new Date(ms));

/** Time zone that times are shown in, as in "GMT+5:30". */
export const zone = () =>
  new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts(new Date()).find(({ type }) => type === "timeZoneName")?.value ?? "";

/** Whether this browser's clock is set otherwise than the ward's. @param {{zone_minutes: number}} session */
export const zoneApart = (session) => -new Date().getTimezoneOffset() !== session.zone_minutes;

/** Short age. @param {number} ms */
export function age(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")} min`;
  return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} min`;
}

/** m:ss that is left. @param {number} ms */
export function countdown(ms) {
  const s = Math.max(0, Math.ceil(ms / 1000));
  return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
}

/** "HR 134 > 120", or nothing. @param {{kind: string, value: number | null, limit: number | null}} alarm */
export function against(alarm) {
  const kind = KINDS[alarm.kind];
  if (alarm.value === null || !kind?.metric) return "";
  const digits = kind.digits ?? 0;
  const value = `${kind.metric} ${alarm.value.toFixed(digits)}`;
  const unit = kind.unit ?? "";
  return alarm.limit === null ? value + unit : `${value} ${kind.sign} ${alarm.limit.toFixed(digits)}${unit}`;
}

/** @param {string} kind */
export const kindName = (kind) => KINDS[kind]?.name ?? kind;
/** @param {string} kind */
export const kindShort = (kind) => KINDS[kind]?.short ?? kind;

/** What the server wrote for people, with the names of alarms instead of their codes. @param {string} text */
export const worded = (text) => text.replace(/\b[A-Z][A-Z_]{3,}\b/g, (code) => kindName(code).replace(/^[A-Z](?=[a-z])/, (first) => first.toLowerCase()));

/** @param {string} code */
export function rhythmName(code) {
  const plain = code.replace("(", "");
  return plain === "" ? "–" : (RHYTHMS[plain] ?? plain);
}

/** Beds in the order that people count. */
export const natural = new Intl.Collator("en", { numeric: true, sensitivity: "base" }).compare;
