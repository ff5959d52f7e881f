// Devices: enrol, renew a secret, lock out. A secret is shown once, as text and as a picture to scan.
// @ts-check
import { part } from "./api.js";
import { h } from "./dom.js";
import { field, table, tell } from "./forms.js";
import { clock } from "./format.js";
import { Section } from "./section.js";
import { T } from "./texts.js";

/** Hosts that name the machine that asks. */
const OWN = /^(127\.|localhost$|\[::1\]$)/;

/** @param {{device: string, broker: string, url: string, qr_svg: string}} made */
export function credentials(made) {
  // As an image a drawing can hold no script and needs no markup in the page.
  const svg = made.qr_svg.includes("xmlns=") ? made.qr_svg : made.qr_svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"');
  return [h("p", {}, T.shownOnce), h("p", { class: "secret" }, made.url),
    h("img", { class: "qr", alt: T.qrOf(made.device), src: `data:image/svg+xml;utf8,${encodeURIComponent(svg)}` }),
    h("p", {}, T.enrolNext), ...(OWN.test(made.broker.split("://")[1] ?? "") ? [h("p", { class: "refused" }, T.enrolLocal)] : [])];
}

export class Devices extends Section {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.devices, "/api/devices");
    const id = h("input", { required: true, maxlength: "64", autocomplete: "off" });
    const label = h("input", { maxlength: "255", autocomplete: "off" });
    this.head.append(this.form([field(T.deviceId, id, T.deviceIdHint), field(T.label, label)], T.enrol, async () => {
      const made = await parts.api.post("/api/devices", { id: id.value, label: label.value });
      tell(T.secretOf(made.device), credentials(made));
    }));
  }

  /** @param {any[]} devices */
  show(devices) {
    const { api } = this.parts;
    return [table([T.deviceId, T.label, T.colState, T.secretSince, ""], devices.map((device) => [device.id, device.label || "–",
      device.revoked_ms ? `${T.lockedOut}, ${clock(device.revoked_ms)}` : T.switchedOn, clock(device.rotated_ms), h("div", { class: "row" },
        this.button(T.rotate, device.id, { title: T.rotateOf(device.id), loses: T.rotateLoses, danger: false }, async () => {
          const made = await api.post(`/api/devices/${part(device.id)}/rotate`);
          setTimeout(() => tell(T.secretOf(made.device), credentials(made)));
        }),
        ...(device.revoked_ms ? [] : [this.button(T.lockOut, device.id, { title: T.lockOutOf(device.id), loses: T.lockOutLoses }, () => api.post(`/api/devices/${part(device.id)}/revoke`))]))]),
    T.noDevices)];
  }
}
