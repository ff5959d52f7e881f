// A screen's millimetre: no browser knows it, so a person measures a card once.
// @ts-check
import { h, put } from "./dom.js";
import { screen } from "./sweep.js";
import { T } from "./texts.js";

/** Long side of a bank card, ISO/IEC 7810 ID-1, mm. */
const CARD_MM = 85.6;
const STANDARD = 96 / 25.4;

/** @param {import("./view.js").Parts} parts */
export function calibration(parts) {
  const { prefs } = parts;
  const bar = h("div", { class: "ruler", role: "img", "aria-label": T.rulerName });
  const value = h("output", { class: "num" });
  const slider = h("input", { type: "range", min: "200", max: "700", step: "1", "aria-label": T.calibrate });
  const show = () => {
    bar.style.width = `${slider.value}px`;
    put(value, T.millimetre((Number(slider.value) / CARD_MM).toFixed(2)));
  };
  slider.value = String(Math.round((prefs.pxPerMm ?? STANDARD) * CARD_MM));
  const set = (/** @type {number | null} */ px) => {
    prefs.pxPerMm = px;
    screen.pxPerMm = px ?? STANDARD;
    slider.value = String(Math.round(screen.pxPerMm * CARD_MM));
    show();
    put(said, px === null ? T.calibratedNot : T.calibrated);
  };
  slider.addEventListener("input", show);
  const said = h("p", { class: "note", "aria-live": "polite" }, prefs.pxPerMm === null ? T.calibratedNot : T.calibrated);
  show();
  return h("section", { class: "card pad wide" }, h("h2", {}, T.calibrate), h("p", {}, T.calibrateHelp), bar, slider, value,
    h("div", { class: "row" },
      h("button", { class: "plain", type: "button", onclick: () => set(Number(slider.value) / CARD_MM) }, T.keepIt),
      h("button", { class: "plain", type: "button", onclick: () => set(null) }, T.standardSize)), said);
}
