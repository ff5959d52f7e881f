// The alarm bar: what waits, the most urgent first, on every page.
// @ts-check
import { h, mark, put, sign } from "./dom.js";
import { age, against, kindName, kindShort } from "./format.js";
import { T } from "./texts.js";
import { level, waits } from "./ward.js";

/** Further alarms shown beside the first, by the width of the page. */
const chipsFor = (/** @type {number} */ width) => (width > 1900 ? 4 : width > 1660 ? 3 : width > 1460 ? 2 : width > 1200 ? 1 : 0);

export class Bar {
  /**
   * @param {HTMLElement} root
   * @param {import("./ward.js").Ward} ward
   * @param {import("./acts.js").Acts} acts
   */
  constructor(root, ward, acts) {
    this.root = root;
    this.ward = ward;
    this.acts = acts;
    /** @type {import("./ward.js").Alarm | undefined} */
    this.first = undefined;
    this.age = h("span", { class: "bar-age" });
    ward.addEventListener("alarms", () => this.draw());
    acts.addEventListener("change", () => this.draw());
    addEventListener("resize", () => this.draw());
    this.draw();
  }

  draw() {
    const waiting = this.ward.open().filter(waits);
    const first = (this.first = waiting[0]);
    if (!first) {
      const seen = this.ward.open().length;
      const calm = this.ward.synced ? T.noAlarms + (seen ? ` · ${seen} acknowledged` : "") : T.loading;
      this.root.replaceChildren(h("div", { class: "bar-calm" }, calm));
      return;
    }
    const busy = this.acts.state(first.id);
    const detail = [first.presence === "latched" ? T.overLatched : "", first.escalation ? T.escalated : "", first.detail].filter(Boolean).join(" · ");
    const block = h("div", { class: "bar-first", "data-level": level(first), "data-alarm": first.id },
      sign(level(first)),
      h("span", { class: "bar-bed" }, first.patient),
      h("div", { class: "bar-what" }, h("div", { class: "bar-kind" }, kindName(first.kind)),
        detail || busy === "failed" ? h("div", { class: "bar-detail" }, busy === "failed" ? T.ackFailed : detail) : null),
      h("span", { class: "bar-value" }, against(first)),
      this.age,
      h("a", { class: "go", href: `/patient/${encodeURIComponent(first.patient)}` }, T.open),
      h("button", { type: "button", disabled: busy === "sent", onclick: (/** @type {MouseEvent} */ event) => {
          // The second half of a double click would hit the alarm that has moved up.
          if (event.detail < 2) this.acts.acknowledge(first.id);
        } },
        busy === "sent" ? T.acknowledging : T.acknowledge));
    const rest = waiting.slice(1);
    const room = chipsFor(innerWidth);
    const chips = rest.slice(0, room).map((alarm) =>
      h("a", { class: "chip", "data-level": level(alarm), href: `/patient/${encodeURIComponent(alarm.patient)}` },
        sign(level(alarm)), h("div", {}, h("b", {}, alarm.patient), h("span", {}, kindShort(alarm.kind)))));
    const count = rest.length - chips.length;
    if (count) chips.push(h("a", { class: "chip chip-more", href: "/alarms" }, T.more(count)));
    this.root.replaceChildren(block, ...(chips.length ? [h("div", { class: "bar-rest" }, ...chips)] : []));
    this.tick();
  }

  /** Ages count up. */
  tick() {
    const first = this.first;
    if (first) {
      const silent = first.silent_until_ms - this.ward.now();
      put(this.age, age(this.ward.now() - first.raised_ms) + (silent > 0 ? ` · ${T.paused(age(silent))}` : ""));
    }
    mark(this.root, "data-waiting", this.first ? "" : null);
  }
}
