// How fresh the page is: the banner over everything, and the line at the foot.
// @ts-check
import { h, mark, put } from "./dom.js";
import { age, clock, zone, zoneApart } from "./format.js";
import { T } from "./texts.js";

const LAG_MS = 2000;

export class Health {
  /** @param {import("./view.js").Parts} parts @param {HTMLElement} banner @param {HTMLElement} foot */
  constructor(parts, banner, foot) {
    this.parts = parts;
    this.banner = banner;
    this.conn = h("span", { class: "conn" });
    this.drops = h("span");
    const { session } = parts;
    const times = zoneApart(session) ? T.zonesApart(zone(), session.zone) : T.zoneIs(zone());
    foot.replaceChildren(this.conn, h("span", { class: "zone" }, times), this.drops, h("span", { class: "grow" }), h("span", { class: "device" }, T.notDevice));
  }

  tick() {
    const { ward, link } = this.parts;
    let text = "";
    let soft = false;
    if (link.state === "lost") text = T.connLost(clock(link.lostAt));
    else if (link.state === "live") {
      soft = true;
      if (ward.feedAgeMs > LAG_MS) text = T.feedDead(age(ward.feedAgeMs));
      else if (ward.lagMs > LAG_MS) text = T.connLag(age(ward.lagMs));
      else if (ward.busLagMs > LAG_MS) text = T.busLag(age(ward.busLagMs));
    }
    this.banner.hidden = !text;
    this.banner.className = soft ? "warn" : "";
    put(this.banner, text);
    put(this.conn, link.state === "live" ? T.connected : link.state === "lost" ? T.connLost(clock(link.lostAt)) : T.loading);
    mark(this.conn, "data-state", link.state);
    put(this.drops, ward.dropped ? T.dropped(ward.dropped) : "");
  }
}
