// Why a rhythm was called what it was: its map over time and frequency, and the features that differed.
// @ts-check
import { h } from "./dom.js";
import { percent } from "./chosen.js";
import { RHYTHMS } from "./vocabulary.js";
import { FEATURES, W } from "./whytexts.js";

/** @typedef {{name: string, value: number, usual: number, effect: number}} Feature */
/** @typedef {{code: string, p: number, second: string, second_p: number, score: string, begin_s: number, end_s: number,
 *   bands: number[][], map: number[][], features: Feature[], compared_s: number | null, rule: string, method: string}} Reason */

/** @param {string} code */
export const rhythmWord = (code) => RHYTHMS[code] ?? code;

/** @param {number} value */
const short = (value) => String(Number(value.toPrecision(3)));

/**
 * Draw a rhythm's map, lowest band at the bottom; over a picture if there is one.
 * @param {HTMLCanvasElement} canvas @param {import("./palette.js").Palette} palette @param {Reason} reason
 * @param {number[][]} [picture] rows of bins from the lowest, of the seconds before the end
 * @param {number} [columnS] seconds of a column of it @param {number} [binHz]
 */
export function drawReason(canvas, palette, reason, picture, columnS = 0, binHz = 0) {
  const rows = picture?.length ?? reason.map.length;
  const columns = picture?.[0]?.length ?? reason.map[0]?.length ?? 0;
  canvas.width = columns;
  canvas.height = rows;
  if (!rows || !columns) return;
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = pen.createImageData(columns, rows);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const value = picture ? cellAt(reason, reason.end_s - (columns - c) * columnS, r * binHz) : reason.map[r][c];
      const paint = value > 0 ? palette.mapFor : palette.mapAgainst;
      const share = 0.85 * Math.abs(value);
      const base = picture ? 0.75 * picture[r][c] : 40;
      const at = 4 * ((rows - 1 - r) * columns + c);
      for (let k = 0; k < 3; k++) image.data[at + k] = (1 - share) * base + share * paint[k];
      image.data[at + 3] = 255;
    }
  }
  pen.putImageData(image, 0, 0);
}

/** @param {Reason} reason @param {number} s @param {number} hz */
function cellAt(reason, s, hz) {
  const row = reason.bands.findIndex(([low, high]) => high === 0 || (hz >= low && hz < high));
  const cells = reason.map[row];
  if (!cells) return 0;
  const at = Math.floor(((s - reason.begin_s) / (reason.end_s - reason.begin_s)) * cells.length);
  return cells[Math.max(0, Math.min(cells.length - 1, at))];
}

/**
 * All of a reason as elements.
 * @param {Reason} reason @param {import("./palette.js").Palette} palette
 * @returns {HTMLElement[]}
 */
export function showReason(reason, palette) {
  const head = h("p", {}, h("b", {}, `${rhythmWord(reason.code)}, ${percent(reason.p)}`), ` · ${rhythmWord(reason.second)}, ${percent(reason.second_p)}`);
  /** @type {HTMLElement[]} */
  const parts = [head];
  if (reason.rule) parts.push(h("p", { class: "note" }, reason.rule));
  if (reason.map.length) {
    const canvas = h("canvas", { class: "map reason" });
    drawReason(canvas, palette, reason);
    parts.push(canvas, h("p", { class: "note" }, `${W.span(reason.begin_s, reason.end_s)}: ${reason.method}. ${W.speaks(rhythmWord(reason.code))}`));
  }
  if (reason.features.length && reason.compared_s !== null) {
    parts.push(h("table", { class: "features" }, h("caption", {}, W.against(reason.compared_s)),
      h("thead", {}, h("tr", {}, ...[W.feature, W.was, W.is, W.weight].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, ...reason.features.map((one) => h("tr", {}, h("td", {}, FEATURES[one.name] ?? one.name.replaceAll("_", " ")),
        ...[one.usual, one.value, one.effect].map((value) => h("td", { class: "num" }, short(value))))))));
  } else if (reason.score && reason.code !== "N") parts.push(h("p", { class: "note" }, W.noAgainst));
  return parts;
}
