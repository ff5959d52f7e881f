// The alarm bar: what waits, the most urgent first, on every page. Its elements stay and only their texts change, so
// that a click never meets a button that was just made anew.
// @ts-check
import { h, mark, put, sign } from "./dom.js";
import { age, against, countdown, kindName, kindShort, worded } from "./format.js";
import { T } from "./texts.js";
import { covers } from "./view.js";
import { level, waits } from "./ward.js";

/** Further alarms shown beside the first, by the width of the page. */
const chipsFor = (/** @type {number} */ width) => (width > 2000 ? 4 : width > 1760 ? 3 : width > 1560 ? 2 : width > 1300 ? 1 : 0);

export class Bar {
  /**
   * @param {HTMLElement} root
   * @param {import("./view.js").Parts} parts
   */
  constructor(root, parts) {
    this.root = root;
    this.parts = parts;
    this.ward = parts.ward;
    this.acts = parts.acts;
    /** @type {import("./ward.js").Alarm | undefined} */
    this.first = undefined;
    this.mayAct = covers(parts.session.role, "monitor");
    this.calm = h("div", { class: "bar-calm" });
    this.sign = h("span", { class: "bar-sign" });
    this.bed = h("span", { class: "bar-bed" });
    this.kind = h("div", { class: "bar-kind" });
    this.detail = h("div", { class: "bar-detail" });
    this.value = h("span", { class: "bar-value" });
    this.age = h("span", { class: "bar-age" });
    this.strip = h("a", { class: "go" }, T.open);
    this.ack = h("button", { type: "button", class: "bar-ack", onclick: (/** @type {MouseEvent} */ event) => {
      // The second half of a double click would hit the alarm that has moved up.
      if (event.detail < 2) this.acknowledge();
    } });
    this.block = h("div", { class: "bar-first" }, this.sign, this.bed, h("div", { class: "bar-what" }, this.kind, this.detail),
      this.value, this.age, this.strip, this.ack);
    this.rest = h("div", { class: "bar-rest" });
    this.pause = h("button", { type: "button", class: "bar-pause", onclick: () => this.sound() });
    root.replaceChildren(this.calm, this.block, this.rest, this.pause);
    for (const what of ["alarms", "settings"]) this.ward.addEventListener(what, () => this.draw());
    this.acts.addEventListener("change", () => this.draw());
    parts.stays.addEventListener("change", () => this.draw());
    addEventListener("resize", () => this.draw());
    this.drawn = "";
    this.draw();
  }

  /** Acknowledge the first alarm. */
  acknowledge() {
    if (this.first && this.mayAct) this.acts.acknowledge(this.first.id);
  }

  /** Pause the sound of all beds, or end the pause. */
  sound() {
    if (!this.mayAct) return;
    if (this.ward.pauses().count) this.acts.resumeAll();
    else this.acts.pauseAll();
  }

  draw() {
    const waiting = this.ward.open().filter(waits);
    const first = (this.first = waiting[0]);
    this.calm.hidden = Boolean(first);
    this.block.hidden = !first;
    if (first) this.fill(first);
    else {
      const seen = this.ward.open().length;
      put(this.calm, this.ward.synced ? T.noAlarms + (seen ? ` · ${T.seenCount(seen)}` : "") : T.loading);
    }
    this.chips(waiting.slice(1));
    this.tick();
  }

  /** @param {import("./ward.js").Alarm} first */
  fill(first) {
    const busy = this.acts.state(first.id);
    const name = this.parts.stays.bed(first.patient);
    mark(this.block, "data-level", level(first));
    mark(this.block, "data-alarm", first.id);
    if (this.sign.dataset.level !== level(first)) {
      this.sign.dataset.level = level(first);
      this.sign.replaceChildren(sign(level(first)));
    }
    const detail = busy === "failed" ? T.ackFailed
      : [first.presence === "latched" ? T.overLatched : "", first.escalation ? T.escalated : "",
        first.retrospective ? T.late : "", worded(first.detail)].filter(Boolean).join(" · ");
    put(this.bed, name);
    put(this.kind, kindName(first.kind));
    put(this.detail, detail);
    this.detail.hidden = !detail;
    put(this.value, against(first));
    mark(this.strip, "href", `/patient/${encodeURIComponent(first.patient)}?alarm=${encodeURIComponent(first.id)}`);
    mark(this.strip, "aria-label", T.openOf(name, kindName(first.kind)));
    this.ack.hidden = !this.mayAct;
    this.ack.disabled = busy === "sent";
    put(this.ack, busy === "sent" ? T.acknowledging : T.acknowledge);
    mark(this.ack, "aria-label", `${T.acknowledge}: ${name}, ${kindName(first.kind)}`);
  }

  /** @param {import("./ward.js").Alarm[]} rest */
  chips(rest) {
    const shown = rest.slice(0, chipsFor(innerWidth));
    const count = rest.length - shown.length;
    const drawn = `${shown.map((alarm) => `${alarm.id} ${level(alarm)} ${this.parts.stays.bed(alarm.patient)}`).join()} ${count}`;
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const chips = shown.map((alarm) =>
      h("a", { class: "chip", "data-level": level(alarm), href: `/patient/${encodeURIComponent(alarm.patient)}?alarm=${encodeURIComponent(alarm.id)}` },
        sign(level(alarm)), h("span", { class: "chip-text" }, h("b", {}, this.parts.stays.bed(alarm.patient)), h("span", {}, kindShort(alarm.kind)))));
    if (count) chips.push(h("a", { class: "chip chip-more", href: "/alarms" }, T.more(count)));
    this.rest.replaceChildren(...chips);
    this.rest.hidden = !chips.length;
  }

  /** Ages count up, pauses count down. */
  tick() {
    const first = this.first;
    if (first) {
      const silent = first.silent_until_ms - this.ward.now();
      put(this.age, age(this.ward.now() - first.raised_ms) + (silent > 0 ? ` · ${T.paused(countdown(silent))}` : ""));
    }
    mark(this.root, "data-waiting", first ? "" : null);
    const { count, left } = this.ward.pauses();
    const failed = this.acts.failure;
    this.pause.hidden = !this.mayAct && !count;
    this.pause.disabled = !this.mayAct;
    mark(this.pause, "data-paused", count ? "" : null);
    mark(this.pause, "aria-pressed", String(count > 0));
    put(this.pause, failed || (count ? T.pausedBeds(count, countdown(left)) : T.pauseSound));
  }
}
