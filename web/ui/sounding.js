// Which sound the ward asks for, and what is spoken to a screen reader.
// @ts-check
import { put } from "./dom.js";
import { kindName } from "./format.js";
import { level, waits } from "./ward.js";

const LOST_SOUND_MS = 10_000;

export class Sounding {
  /** @param {import("./view.js").Parts} parts @param {HTMLElement} spoken */
  constructor(parts, spoken) {
    this.parts = parts;
    this.spoken = spoken;
    /** @type {Set<string>} */
    this.announced = new Set();
    /** When each alarm last asked for attention. @type {Map<string, number>} */
    this.asked = new Map();
  }

  /** Sound and speech follow the most urgent alarm that waits. */
  follow() {
    const { ward, link, signals } = this.parts;
    const now = ward.now();
    const waiting = ward.open().filter(waits);
    const lost = link.state === "lost" && ward.synced && now - link.lostAt > LOST_SOUND_MS;
    // A medium alarm that is over stays as a silent message; a high one goes on sounding. A pause ends by itself.
    const loud = waiting.filter((alarm) => (alarm.presence === "on" || alarm.priority >= 3) && alarm.silent_until_ms <= now);
    const top = Math.max(lost ? 2 : 0, ...loud.map((alarm) => alarm.priority));
    signals.set(tone(top), Math.max(0, ...loud.map((alarm) => alarm.escalation)));
    this.again();
    this.speak(waiting);
  }

  /** An acknowledged alarm that asks again (a reminder) sounds once. */
  again() {
    const { ward, signals } = this.parts;
    for (const alarm of ward.alarms.values()) {
      const before = this.asked.get(alarm.id);
      this.asked.set(alarm.id, alarm.announced_ms);
      if (before !== undefined && alarm.presence === "ack" && alarm.announced_ms > before) signals.burst(tone(alarm.priority) ?? "low");
    }
    for (const id of this.asked.keys()) if (!ward.alarms.has(id)) this.asked.delete(id);
  }

  /** @param {import("./ward.js").Alarm[]} waiting */
  speak(waiting) {
    for (const alarm of waiting) {
      if (this.announced.has(alarm.id)) continue;
      this.announced.add(alarm.id);
      if (level(alarm) === "high" || level(alarm) === "medium") put(this.spoken, `${this.parts.stays.bed(alarm.patient)}: ${kindName(alarm.kind)}`);
    }
    for (const id of this.announced) if (!this.parts.ward.alarms.has(id)) this.announced.delete(id);
  }
}

/** @param {number} priority @returns {import("./signals.js").Tone | null} */
const tone = (priority) => (priority >= 3 ? "high" : priority === 2 ? "medium" : priority === 1 ? "low" : null);
