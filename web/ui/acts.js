// What staff do: sent to the server, true only when the event comes back.
// @ts-check
const ANSWER_MS = 4000;

export class Acts extends EventTarget {
  /** @param {import("./ward.js").Ward} ward @param {string} csrf */
  constructor(ward, csrf) {
    super();
    this.ward = ward;
    this.csrf = csrf;
    /** @type {Map<string, "sent" | "failed">} */
    this.states = new Map();
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

  /** @param {string} path */
  async post(path) {
    const answer = await fetch(path, { method: "POST", headers: { "X-CSRF-Token": this.csrf } });
    if (answer.status === 401) location.assign("/login");
    if (!answer.ok) throw new Error(`${answer.status}`);
  }

  /** @param {string} id */
  async acknowledge(id) {
    if (this.states.get(id) === "sent") return;
    this.become(id, "sent");
    // The server's answer says that the act is stored; the alarm itself says that it was done.
    const late = () => this.states.get(id) === "sent" && this.become(id, "failed");
    try {
      await this.post(`/api/alarms/${id.split("/").map(encodeURIComponent).join("/")}/ack`);
      setTimeout(late, ANSWER_MS);
    } catch {
      late();
    }
  }

  async logout() {
    await this.post("/api/logout").catch(() => undefined);
    location.assign("/login");
  }
}
