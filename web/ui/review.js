// The queue of alarms that nobody judged: strip, evidence and rule of one, a key for each verdict, a key for the next.
// @ts-check
import { alarmPath } from "./api.js";
import { h, mark, put, sign } from "./dom.js";
import { failure } from "./forms.js";
import { against, clock, kindName, rhythmName, worded } from "./format.js";
import { HeldBeat, bytes } from "./heldbeat.js";
import { Strip } from "./strip.js";
import { T } from "./texts.js";
import { BEATS, DELIVERED, VERDICTS } from "./vocabulary.js";
import { View } from "./view.js";
import { level } from "./ward.js";
import { showReason } from "./why.js";

const AGAIN_MS = 30_000;
const MOST = 200;

/** @param {any} detail answer of /api/alarms/{id} @returns {import("./strip.js").StripData | null} */
export function evidenceStrip(detail) {
  const { evidence, alarm } = detail;
  if (!evidence?.fs || !evidence.samples_mv.length) return null;
  const data = evidence.columns ? bytes(evidence.columns) : null;
  return { from_ms: evidence.from_ms, fs: evidence.fs, lead: evidence.lead, mv: evidence.samples_mv, beats: evidence.beats,
    marks: [{ ms: alarm.onset_ms, text: kindName(alarm.kind), level: level(alarm) }],
    columns: data ? { data, from_ms: evidence.from_ms, column_ms: evidence.column_ms, bins: evidence.bins } : null };
}

export class Review extends View {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.review);
    /** @type {any[]} */
    this.queue = [];
    /** @type {any} */
    this.detail = null;
    /** @type {string | null} */
    this.id = null;
    this.loaded = 0;
    this.count = h("span", { class: "note", role: "status" });
    this.list = h("div", { class: "queue", role: "list", "aria-label": T.queue, hidden: true });
    this.body = h("div", { class: "judged card pad", "aria-live": "off" });
    this.said = h("p", { class: "note", role: "status" });
    this.comment = h("input", { class: "field", type: "text", maxlength: "2000", placeholder: T.comment, "aria-label": T.comment });
    this.buttons = Object.entries(VERDICTS).map(([verdict, { text, key }]) =>
      h("button", { class: "act", type: "button", disabled: true, onclick: () => this.judge(verdict) }, h("kbd", {}, key), ` ${text}`));
    this.verdicts = h("div", { class: "card pad row verdicts" }, ...this.buttons, this.comment,
      h("button", { class: "plain", type: "button", onclick: () => this.next() }, h("kbd", {}, "N"), ` ${T.next}`), this.said);
    this.root = h("div", { class: "page review" },
      h("div", { class: "row" }, h("h1", {}, T.reviewTitle), this.count),
      h("div", { class: "review-grid" }, this.list, h("div", { class: "review-main" }, this.body,
        this.may("monitor") ? this.verdicts : h("p", { class: "note" }, T.needsMonitor))));
    this.on(parts.stays, "change", () => this.draw());
    parts.link.watch([], null);
    this.load(true);
  }

  /** @param {boolean} [first] show the first of the queue */
  async load(first = false) {
    this.loaded = Date.now();
    try {
      this.queue = await this.parts.api.get(`/api/judging?limit=${MOST}`);
    } catch (error) {
      this.body.replaceChildren(failure(error));
      return;
    }
    if (!this.open) return;
    this.draw();
    if (first || this.id === null) this.show(this.queue[0]?.alarm.id ?? null);
  }

  draw() {
    put(this.count, this.queue.length >= MOST ? T.waitMany(MOST) : T.waitCount(this.queue.length));
    this.list.hidden = !this.queue.length;
    mark(this.root, "data-empty", this.queue.length ? null : "");
    this.list.replaceChildren(...this.queue.map(({ alarm }) =>
      h("div", { role: "listitem" }, h("button", { type: "button", class: "queued", "data-level": level(alarm), "data-alarm": alarm.id,
        "aria-current": alarm.id === this.id ? "true" : null, onclick: () => this.show(alarm.id) },
        sign(level(alarm)), h("span", {}, h("b", {}, kindName(alarm.kind)), h("small", {}, `${this.parts.stays.bed(alarm.patient)} · ${clock(alarm.onset_ms)}`))))));
  }

  /** @param {string | null} id */
  async show(id) {
    this.id = id;
    this.detail = null;
    this.strip = null;
    put(this.said, "");
    for (const button of this.buttons) button.disabled = true;
    for (const button of this.list.querySelectorAll(".queued")) mark(button, "aria-current", button.getAttribute("data-alarm") === id ? "true" : null);
    if (id === null) {
      this.body.replaceChildren(h("p", { class: "empty" }, T.queueEmpty));
      return;
    }
    this.body.replaceChildren(h("p", { class: "none" }, T.loadingOne));
    try {
      const detail = await this.parts.api.get(`/api/alarms/${alarmPath(id)}`);
      if (this.id !== id || !this.open) return;
      this.detail = detail;
      this.body.replaceChildren(...this.evidence(detail));
      for (const button of this.buttons) button.disabled = false;
    } catch (error) {
      if (this.id === id) this.body.replaceChildren(failure(error));
    }
  }

  /** @param {any} detail @returns {Node[]} */
  evidence(detail) {
    const { alarm, evidence, judgement } = detail;
    const { parts } = this;
    const data = evidenceStrip(detail);
    const path = `/api/alarms/${alarmPath(alarm.id)}/report.pdf`;
    const head = h("div", { class: "row judged-head", "data-level": level(alarm) }, sign(level(alarm)),
      h("div", {}, h("h2", {}, kindName(alarm.kind)), h("p", { class: "note" },
        [parts.stays.bed(alarm.patient), parts.stays.person(alarm.patient), clock(alarm.onset_ms), against(alarm)].filter(Boolean).join(" · "))),
      h("span", { class: "grow" }), h("a", { class: "plain button", href: `/patient/${encodeURIComponent(alarm.patient)}` }, T.patient),
      h("a", { class: "plain button", href: path, download: "" }, "PDF"));
    const rule = h("p", { class: "rule" }, worded(evidence?.rule || alarm.detail || "") || T.noRule);
    const facts = [[T.acked, alarm.acked_by ? `${alarm.acked_by}, ${clock(alarm.acked_ms)}` : T.nobody],
      [T.ended, alarm.cleared_ms ? clock(alarm.cleared_ms) : T.goesOn], [T.model, evidence?.model ?? "–"],
      [T.toldTo, detail.deliveries.map((/** @type {any} */ one) => `${one.label}: ${DELIVERED[one.state] ?? one.state}`).join(", ") || T.onlyPages],
      [T.verdictNow, judgement ? `${VERDICTS[judgement.verdict]?.text ?? judgement.verdict}, ${judgement.who}` : T.notJudged]];
    const sure = Object.entries(evidence?.probabilities ?? {}).sort((a, b) => b[1] - a[1]).slice(0, 4)
      .map(([code, p]) => `${BEATS[code]?.name ?? rhythmName(code)} ${Math.round(p * 100)} %`).join(" · ");
    /** @type {Node[]} */
    const middle = [];
    if (data) {
      const beat = new HeldBeat(data, parts, alarm.patient);
      this.strip = new Strip(data, parts.palette, { speed: 25, gain: null, heat: true });
      this.strip.onbeat = (one) => beat.show(one);
      const strip = this.strip;
      requestAnimationFrame(() => (strip.root.scrollLeft = strip.x(alarm.onset_ms) - strip.root.clientWidth / 3));
      middle.push(strip.root, ...this.why(evidence), h("div", { class: "columns" }, beat.root, this.facts(facts, sure)));
    } else middle.push(h("p", { class: "none" }, evidence === null ? T.evidenceSoon : T.notRecorded), this.facts(facts, sure));
    return [head, rule, ...middle];
  }

  /** What in the signal made the verdict on the rhythm. @param {any} evidence @returns {Node[]} */
  why(evidence) {
    const { map } = evidence;
    if (!map) return [];
    const [begin, end] = [map.from_ms, map.to_ms].map((ms) => (ms - evidence.from_ms) / 1000);
    const reason = { ...map, score: "", map: map.cells, begin_s: begin, end_s: end, compared_s: null };
    return [h("details", { class: "card pad" }, h("summary", {}, T.whyMap), ...showReason(reason, this.parts.palette))];
  }

  /** @param {string[][]} facts @param {string} sure */
  facts(facts, sure) {
    return h("dl", { class: "card facts" }, ...[...facts, ...(sure ? [[T.sure, sure]] : [])].flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }

  /** @param {string} verdict */
  async judge(verdict) {
    const id = this.id;
    if (id === null || !this.detail || !this.may("monitor")) return;
    for (const button of this.buttons) button.disabled = true;
    try {
      await this.parts.api.post(`/api/alarms/${alarmPath(id)}/judge`, { verdict, comment: this.comment.value });
    } catch (error) {
      put(this.said, error instanceof Error ? error.message : String(error));
      for (const button of this.buttons) button.disabled = false;
      return;
    }
    this.comment.value = "";
    const at = this.queue.findIndex(({ alarm }) => alarm.id === id);
    this.queue = this.queue.filter(({ alarm }) => alarm.id !== id);
    this.draw();
    await this.show((this.queue[at] ?? this.queue[0])?.alarm.id ?? null);
    put(this.said, T.judgedAs(VERDICTS[verdict].text));
  }

  next() {
    const at = this.queue.findIndex(({ alarm }) => alarm.id === this.id);
    this.show((this.queue[at + 1] ?? this.queue[0])?.alarm.id ?? null);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const verdict = Object.entries(VERDICTS).find(([, { key }]) => key.toLowerCase() === event.key.toLowerCase())?.[0];
    const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
    if (verdict) this.judge(verdict);
    else if (event.key.toLowerCase() === "n") this.next();
    else if (by && this.strip) this.strip.step(by);
    else return false;
    return true;
  }

  tick() {
    if (Date.now() - this.loaded > AGAIN_MS) this.load();
  }

  recolour() {
    this.strip?.draw();
  }
}
