// Colours of the tokens for what is drawn on canvases.
// @ts-check
import { BEATS } from "./vocabulary.js";

/** Colours of the tokens, read once for each theme. */
export class Palette {
  constructor() {
    const style = getComputedStyle(document.documentElement);
    /** @param {string} name */
    const get = (name) => style.getPropertyValue(name).trim();
    this.trace = get("--trace");
    this.fine = get("--paper-fine");
    this.bold = get("--paper-bold");
    this.paper = get("--paper");
    this.text = get("--text-2");
    /** What lies under a trace on the wall, by the alarm of its tile. @type {Record<string, string>} */
    this.ground = { "": get("--surface"), high: get("--surface-high"), medium: get("--surface-medium") };
    /** @type {Record<string, string>} */
    this.beats = {};
    for (const [code, beat] of Object.entries(BEATS)) this.beats[code] = get(beat.token);
    /** @type {Record<string, string>} */
    this.levels = Object.fromEntries(["high", "medium", "low", "technical"].map((level) => [level, get(`--${level}-ink`)]));
    this.line = get("--line-strong");
    this.strong = get("--text");
    this.accent = get("--accent");
    this.heatGround = rgb(get("--spec-0")).join();
    this.mapFor = rgb(get("--map-for"));
    this.mapAgainst = rgb(get("--map-against"));
    this.heat = heatmap([0, 1, 2, 3, 4, 5].map((i) => get(`--spec-${i}`)));
  }
}

/** @param {string} hex "#rrggbb" */
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** 256 colours through the anchors, as ABGR words. @param {string[]} anchors "#rrggbb" */
function heatmap(anchors) {
  const table = new Uint32Array(256);
  const stops = anchors.map(rgb);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    const [r, g, b] = stops[low].map((from, c) => Math.round(from + (stops[low + 1][c] - from) * (place - low)));
    table[i] = 0xff000000 | (b << 16) | (g << 8) | r;
  }
  return table;
}
