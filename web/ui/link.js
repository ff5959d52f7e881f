// The connection to the server: binary messages in, what is in sight out; comes back by itself and says how it stands.
// @ts-check
import { leave } from "./leave.js";
import { messages } from "./wire.js";

const SILENCE_MS = 2000;
const GIVE_UP_MS = 5000;
const BACKOFF_MS = [300, 4000];
const LOGGED_OUT = 4401;

/** @typedef {import("./ward.js").Ward} Ward */

export class Link extends EventTarget {
  /** @param {Ward} ward */
  constructor(ward) {
    super();
    this.ward = ward;
    /** @type {"connecting" | "live" | "lost"} */
    this.state = "connecting";
    this.lostAt = 0;
    this.heard = performance.now();
    this.pause = BACKOFF_MS[0];
    this.bytes = 0;
    /** @type {WebSocket | null} */
    this.socket = null;
    this.sent = "";
    this.want = JSON.stringify({ beds: [], detail: null });
    this.open();
    setInterval(() => this.check(), 250);
    addEventListener("online", () => this.check());
  }

  open() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    this.socket = socket;
    this.opened = performance.now();
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      if (this.socket !== socket) return;
      this.ward.begin();
      this.sent = "";
      this.flush();
    };
    socket.onmessage = (event) => {
      if (this.socket !== socket) return;
      this.heard = performance.now();
      this.pause = BACKOFF_MS[0];
      this.bytes += event.data.byteLength;
      for (const message of messages(event.data)) this.ward.apply(message);
      if (this.ward.synced) this.become("live");
    };
    socket.onclose = (event) => {
      if (this.socket !== socket) return;
      this.socket = null;
      if (event.code === LOGGED_OUT) leave();
      else this.again();
    };
  }

  again() {
    this.become("lost");
    const wait = this.pause * (0.8 + 0.4 * Math.random());
    this.pause = Math.min(2 * this.pause, BACKOFF_MS[1]);
    setTimeout(async () => {
      // A refused handshake doesn't say why; the session does.
      const answer = await fetch("/api/session", { cache: "no-store" }).catch(() => null);
      if (answer?.status === 401) leave();
      else this.open();
    }, wait);
  }

  check() {
    const silent = performance.now() - this.heard;
    if (silent > SILENCE_MS && this.state === "live") this.become("lost");
    const socket = this.socket;
    if (socket && silent > GIVE_UP_MS && performance.now() - (this.opened ?? 0) > GIVE_UP_MS) {
      this.socket = null;
      socket.close();
      this.again();
    }
  }

  /** @param {"connecting" | "live" | "lost"} state */
  become(state) {
    if (this.state === state) return;
    if (state === "lost") this.lostAt = this.ward.now() - (performance.now() - this.heard);
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }

  /** Say what is drawn. @param {string[] | null} beds null for all @param {string | null} detail */
  watch(beds, detail) {
    this.want = JSON.stringify({ beds, detail });
    this.flush();
  }

  flush() {
    if (this.socket?.readyState === WebSocket.OPEN && this.sent !== this.want) {
      this.socket.send(this.want);
      this.sent = this.want;
    }
  }
}
