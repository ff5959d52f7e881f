// What staff do: sent to the server, true only when the event comes back.
// @ts-check
import { alarmPath, part } from "./api.js";
import { forget, leave } from "./leave.js";
import { T } from "./texts.js";

const ANSWER_MS = 4000;

export class Acts extends EventTarget {
  /** @param {import("./ward.js").Ward} ward @param {import("./api.js").Api} api */
  constructor(ward, api) {
    super();
    this.ward = ward;
    this.api = api;
    /** @type {Map<string, "sent" | "failed">} */
    this.states = new Map();
    /** Why the last pause of the sound was not begun or ended; shown until it is tried again. */
    this.failure = "";
    ward.addEventListener("alarms", () => {
      for (const id of this.states.keys()) {
        const presence = ward.alarms.get(id)?.presence;
        if (presence !== "on" && presence !== "latched") this.states.delete(id);
      }
    });
  }

  /** @param {string} id */
  state(id) {
    return this.states.get(id) ?? null;
  }

  /** @param {string} id @param {"sent" | "failed"} state */
  become(id, state) {
    this.states.set(id, state);
    this.dispatchEvent(new Event("change"));
  }

  /** @param {string} id */
  async acknowledge(id) {
    if (this.states.get(id) === "sent") return;
    this.become(id, "sent");
    // The server's answer says that the act is stored; the alarm itself says that it was done.
    const late = () => this.states.get(id) === "sent" && this.become(id, "failed");
    try {
      await this.api.post(`/api/alarms/${alarmPath(id)}/ack`);
      setTimeout(late, ANSWER_MS);
    } catch {
      late();
    }
  }

  pauseAll() {
    return this.sound("/api/pause");
  }

  resumeAll() {
    return this.sound("/api/resume");
  }

  /** @param {string} patient */
  pause(patient) {
    return this.sound(`/api/patients/${part(patient)}/pause`);
  }

  /** @param {string} patient */
  resume(patient) {
    return this.sound(`/api/patients/${part(patient)}/resume`);
  }

  /** Begin or end an audio pause; the settings that come back say that it is so. @param {string} path */
  async sound(path) {
    this.failure = "";
    try {
      await this.api.post(path);
    } catch {
      this.failure = T.pauseFailed;
    }
    this.dispatchEvent(new Event("change"));
  }

  async logout() {
    forget();
    await this.api.post("/api/logout").catch(() => undefined);
    leave();
  }
}
