// Texts on why something was called what it was.
// @ts-check

export const W = {
  ofBeats: /** @param {number} i @param {number} n */ (i, n) => `Beat ${i} of ${n}`,
  stepHint: "← and → step from beat to beat.",
  noPicture: /** @param {number} n */ (n) => `Spectrograms come with the first ${n} beats.`,
  occluded: "Made by painting over one part at a time and judging again.",
  ownNetwork: /** @param {string} name */ (name) => `Judged by a network that images trained (${name}).`,
  rhythms: "Rhythms, and why",
  working: "Working it out from the last half minute…",
  again: /** @param {string} name @param {string} p */ (name, p) => `Judged again from the last half minute that this page holds: ${name}, ${p}.`,
  againNot: "Could not be worked out: the half minute that this page holds has no such beat.",
  noMap: "No map.",
  failed: "The server could not work it out.",
  speaks: /** @param {string} name */ (name) => `Orange speaks for ${name}, blue against it.`,
  span: /** @param {number} a @param {number} b */ (a, b) => `${a.toFixed(1)} to ${b.toFixed(1)} s`,
  against: /** @param {number} s */ (s) => `What differed from the quiet second at ${s.toFixed(0)} s`,
  noAgainst: "No quiet second of this patient to compare features with.",
  feature: "Feature",
  was: "Was",
  is: "Is",
  weight: "Weighs",
  classic: "Window of a rhythm",
};

/** What staff may call the features that matter most; others keep their own names. @type {Record<string, string>} */
export const FEATURES = {
  rms: "size of the wave", leakage: "VF-filter leakage", crossings: "zero crossings a second", peak_hz: "main frequency, Hz",
  peak_share: "share of the main frequency", periodicity: "periodicity", beats_4: "beats in 4 s", beats_8: "beats in 8 s",
  rr_mean: "mean RR", rr_spread: "spread of RR", rr_step: "step from RR to RR", width: "QRS width", width_ratio: "QRS width to usual",
  usual: "likeness to the usual beat", usual_mean: "likeness to the usual beat", pair: "likeness to the beat before",
  p_recent: "P wave in the last beats", p_coherence: "P waves alike", p_on_time: "P wave of timely beats", entropy: "disorder",
  turning: "turning points of RR", matches: "equal RR pairs", steps_over_6: "RR steps over 6 %", steps_over_12: "RR steps over 12 %",
  foretold_1: "RR foretold by the last", foretold_2: "RR foretold by the last two", modal_share: "share of the basic RR",
};
