// One bed's waveform on its way to the screen: a ring of samples, and a playhead that runs evenly through them.
//
// Stretches arrive about once a second with about a second of samples. The playhead follows the display's clock, a
// little behind the newest sample; it runs up to a tenth faster or slower so that the buffer just before a new stretch
// arrives stays near RESERVE. It stops when samples run out, and never invents any.
// @ts-check

const CAPACITY = 8192;
const RESERVE_S = 0.15;
const BEATS = 80;
const COLUMNS = 1024;
export const MISSING = -32768;
const UNIT_MV = 0.005;

/** @typedef {{epoch: number, sample: number, ms: number, index: number, code: string, p: number, second: string, second_p: number, rr_ms: number, map?: Uint8Array}} Beat */

export class Trace {
  constructor() {
    this.mv = new Float32Array(CAPACITY);
    this.rate = 250;
    this.epoch = -1;
    /** Index after the newest sample, first index known, and the place of the playhead. */
    this.end = 0;
    this.start = 0;
    this.head = 0;
    /** Counts new beginnings, so that a sweep knows to paint afresh. */
    this.life = 0;
    /** Counts sample axes: a place on an old one means nothing any more. */
    this.axis = 0;
    this.trough = 0;
    this.last = 0;
    /** Ties wall time to the sample axis: the latest stretch. */
    this.anchor = { index: 0, ms: 0 };
    /** @type {Beat[]} */
    this.beats = [];
    /** @type {{data: Uint8Array, hop: number, bins: number, top_hz: number, end: number, start: number} | null} */
    this.columns = null;
    /** @type {Set<{beat: (beat: Beat) => void}>} */
    this.sinks = new Set();
  }

  /** Samples that wait behind the playhead. */
  get buffered() {
    return this.end - this.head;
  }

  /**
   * @param {{epoch: number, index: number, ms: number, rate: number, samples: Uint8Array}} wave
   * @returns {boolean} whether it held new samples
   */
  push(wave) {
    const count = wave.samples.byteLength >> 1;
    const end = wave.index + count;
    if (wave.epoch !== this.epoch || wave.index > this.end + CAPACITY / 2) {
      this.epoch = wave.epoch;
      this.rate = wave.rate;
      this.start = this.end = wave.index;
      this.head = wave.index - RESERVE_S * wave.rate;
      this.trough = RESERVE_S * wave.rate;
      this.beats = [];
      this.columns = null;
      this.axis++;
      this.life++;
    }
    if (end <= this.end) return false;
    const view = new DataView(wave.samples.buffer, wave.samples.byteOffset, wave.samples.byteLength);
    for (let i = this.end; i < wave.index; i++) this.mv[i & (CAPACITY - 1)] = NaN;
    for (let i = Math.max(wave.index, this.end); i < end; i++) {
      const unit = view.getInt16(2 * (i - wave.index), true);
      this.mv[i & (CAPACITY - 1)] = unit === MISSING ? NaN : unit * UNIT_MV;
    }
    // The trough is followed down at once and up slowly: late stretches count more than early ones.
    const waiting = Math.max(0, this.buffered);
    this.trough = waiting < this.trough ? waiting : this.trough + 0.2 * (waiting - this.trough);
    this.end = end;
    this.start = Math.max(this.start, end - CAPACITY);
    this.anchor = { index: wave.index, ms: wave.ms };
    if (this.buffered > 3 * this.rate) this.head = end - count - RESERVE_S * this.rate;
    return true;
  }

  /** Move the playhead to the display's time. @param {number} now ms */
  advance(now) {
    const dt = (now - this.last) / 1000;
    this.last = now;
    if (dt <= 0 || this.buffered <= 0) return;
    if (dt > 1) {
      // The tab slept: go on where the ward is now.
      this.head = Math.max(this.head, this.end - 1.2 * this.rate);
      this.life++;
      return;
    }
    const off = (this.trough - RESERVE_S * this.rate) / this.rate;
    const speed = 1 + Math.max(-0.1, Math.min(0.1, 0.3 * off));
    this.head = Math.min(this.end, this.head + dt * this.rate * speed);
  }

  /** mV at an index; NaN where there is none. @param {number} index */
  at(index) {
    return index < this.start || index >= this.end ? NaN : this.mv[index & (CAPACITY - 1)];
  }

  /** @param {{epoch: number, sample: number, ms: number, code: string, p: number, second: string, second_p: number, rr_ms: number, map?: Uint8Array}} message */
  beat(message) {
    if (message.epoch !== this.epoch || this.end === 0) return;
    const index = Math.round(this.anchor.index + ((message.ms - this.anchor.ms) * this.rate) / 1000);
    const beats = this.beats;
    if (beats.length && message.sample <= beats[beats.length - 1].sample) return;
    // A copy: a view would keep the whole websocket frame.
    const beat = { ...message, index, map: message.map?.slice() };
    beats.push(beat);
    if (beats.length > BEATS) beats.shift();
    for (const sink of this.sinks) sink.beat(beat);
  }

  /** @param {{epoch: number, column0: number, hop: number, bins: number, top_hz: number, data: Uint8Array}} message */
  spectrogram(message) {
    if (message.epoch !== this.epoch) return;
    const count = message.data.length / message.bins;
    let ring = this.columns;
    if (!ring || ring.bins !== message.bins || ring.hop !== message.hop || message.column0 > ring.end + COLUMNS / 2) {
      ring = { data: new Uint8Array(COLUMNS * message.bins), hop: message.hop, bins: message.bins, top_hz: message.top_hz,
        start: message.column0, end: message.column0 };
      this.columns = ring;
    }
    if (message.column0 > ring.end) ring.start = message.column0;
    for (let i = 0; i < count; i++) {
      const slot = (message.column0 + i) & (COLUMNS - 1);
      ring.data.set(message.data.subarray(i * ring.bins, (i + 1) * ring.bins), slot * ring.bins);
    }
    ring.end = Math.max(ring.end, message.column0 + count);
    ring.start = Math.max(ring.start, ring.end - COLUMNS);
  }

  /** Values of a column; null where it isn't known. @param {number} column */
  column(column) {
    const ring = this.columns;
    if (!ring || column < ring.start || column >= ring.end) return null;
    const at = (column & (COLUMNS - 1)) * ring.bins;
    return ring.data.subarray(at, at + ring.bins);
  }

  /** Least and largest mV of the last seconds. @param {number} seconds */
  range(seconds) {
    let low = Infinity;
    let high = -Infinity;
    for (let i = Math.max(this.start, Math.floor(this.end - seconds * this.rate)); i < this.end; i++) {
      const mv = this.mv[i & (CAPACITY - 1)];
      if (mv < low) low = mv;
      if (mv > high) high = mv;
    }
    return low <= high ? { low, high } : null;
  }
}
