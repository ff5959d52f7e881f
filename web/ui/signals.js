// Alarm signals: pulses after IEC 60601-1-8, made in the browser, and the flash that goes with them.
// @ts-check

/** Fundamental in Hz (150 to 1000) and the strength of its harmonics; at least four within 15 dB. */
const HARMONICS = [0, 1, 0.7, 0.6, 0.5, 0.4, 0.3];
const RISE = 0.15;

/**
 * Bursts: when each pulse begins (s), how long it is (s), and the time from burst to burst (s). High: ten pulses, twice
 * 3 + 2; between the third and the fourth lie two pulses and a gap, between the fifth and the sixth half a second.
 * Medium: three; low: one. Lengths and gaps within IEC 60601-1-8, table 3 and 4.
 */
export const BURSTS = {
  high: { starts: [0, 0.22, 0.44, 0.94, 1.16, 1.8, 2.02, 2.24, 2.74, 2.96], pulse: 0.14, pitch: 660, every: 10, level: 0.5 },
  medium: { starts: [0, 0.4, 0.8], pulse: 0.2, pitch: 494, every: 20, level: 0.35 },
  low: { starts: [0], pulse: 0.25, pitch: 330, every: 30, level: 0.25 },
};

/** @typedef {keyof typeof BURSTS} Tone */
const RANK = { low: 1, medium: 2, high: 3 };

export class Signals extends EventTarget {
  constructor() {
    super();
    /** @type {AudioContext | null} */
    this.audio = null;
    /** @type {Tone | null} */
    this.tone = null;
    /** Nobody came: 0 to 3, each a step louder. */
    this.escalation = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    /** Bursts begun, by tone; for the tests. @type {Record<string, number>} */
    this.played = { high: 0, medium: 0, low: 0 };
    for (const gesture of ["pointerdown", "keydown"]) addEventListener(gesture, () => this.unlock(), { capture: true });
    this.unlock();
  }

  /** Whether the browser lets us sound. */
  get allowed() {
    return this.audio?.state === "running";
  }

  unlock() {
    if (this.allowed) return;
    if (!this.audio) {
      this.audio = new AudioContext();
      this.wave = this.audio.createPeriodicWave(new Float32Array(HARMONICS.length), new Float32Array(HARMONICS));
      this.audio.onstatechange = () => this.dispatchEvent(new Event("allowed"));
    }
    this.audio.resume().catch(() => this.dispatchEvent(new Event("allowed")));
  }

  /** Sound for the most urgent alarm that waits; a more urgent one breaks in at once. @param {Tone | null} tone @param {number} [escalation] */
  set(tone, escalation = 0) {
    this.escalation = escalation;
    const before = this.tone;
    if (tone === before) return;
    this.tone = tone;
    if (tone === null) {
      clearTimeout(this.timer);
      this.timer = undefined;
    } else if (before === null || RANK[tone] > RANK[before]) {
      clearTimeout(this.timer);
      this.loop();
    }
  }

  loop() {
    const tone = this.tone;
    if (tone === null) return;
    this.burst(tone);
    this.timer = setTimeout(() => this.loop(), BURSTS[tone].every * 1000);
  }

  /** One burst, now. @param {Tone} tone */
  burst(tone) {
    this.played[tone]++;
    const audio = this.audio;
    if (!audio || !this.wave || audio.state !== "running") return;
    const { starts, pulse, pitch } = BURSTS[tone];
    const level = Math.min(1, BURSTS[tone].level * (1 + 0.33 * this.escalation));
    for (const start of starts) {
      const at = audio.currentTime + 0.03 + start;
      const source = audio.createOscillator();
      const gain = audio.createGain();
      source.setPeriodicWave(this.wave);
      source.frequency.value = pitch;
      gain.gain.setValueAtTime(0, at);
      gain.gain.linearRampToValueAtTime(level, at + RISE * pulse);
      gain.gain.setValueAtTime(level, at + (1 - RISE) * pulse);
      gain.gain.linearRampToValueAtTime(0, at + pulse);
      source.connect(gain).connect(audio.destination);
      source.start(at);
      source.stop(at + pulse);
    }
  }
}

/** Flash of all signs in step: high at 2 Hz, medium at 0.6 Hz, half on and half off. Whoever wants less motion sees no flash. */
export function flash() {
  const root = document.documentElement;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const begin = (/** @type {string} */ name, /** @type {number} */ hertz) => {
    setInterval(() => {
      if (still.matches) delete root.dataset[name];
      else root.dataset[name] = root.dataset[name] === "off" ? "on" : "off";
    }, 500 / hertz);
  };
  begin("flashHigh", 2);
  begin("flashMedium", 0.6);
}
