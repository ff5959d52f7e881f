// Binary messages of the server: frames are msgpack arrays of [tag, field, ...]. Fields as in web/wire.py.
// @ts-check

/** Field names by tag, in the order of web/wire.py. @type {Record<string, string[]>} */
export const FIELDS = {
  hello: ["version", "user", "ward", "server_ms"],
  clock: ["server_ms", "feed_age_ms", "bus_lag_ms", "dropped"],
  reset: ["patients"],
  beds: ["patients"],
  synced: ["server_ms"],
  wave: ["patient", "epoch", "index", "ms", "rate", "lead", "hr", "hr_ms", "rhythm", "pvc_min", "quality", "samples"],
  cols: ["patient", "epoch", "column0", "hop", "bins", "top_hz", "data"],
  beat: ["patient", "epoch", "sample", "ms", "code", "p", "second", "second_p", "rr_ms", "map"],
  rhythm: ["patient", "ms", "code", "p"],
  status: ["patient", "device", "ms", "lead", "leads", "quality", "note", "battery"],
  alarm: ["id", "patient", "kind", "priority", "presence", "revision", "onset_ms", "raised_ms", "changed_ms", "cleared_ms",
    "acked_by", "acked_ms", "value", "limit", "detail", "technical", "lethal",
    "announced_ms", "escalation", "silent_until_ms", "reason", "retrospective"],
  settings: ["patient", "ms", "reason", "user", "profile", "off", "lethal_off", "pause_until_ms", "pause_by", "vacant", "note"],
};

const utf8 = new TextDecoder();

class Reader {
  /** @param {ArrayBuffer} buffer */
  constructor(buffer) {
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.at = 0;
  }

  /** @param {number} size */
  text(size) {
    this.at += size;
    return utf8.decode(this.bytes.subarray(this.at - size, this.at));
  }

  /** @param {number} size */
  blob(size) {
    this.at += size;
    return this.bytes.subarray(this.at - size, this.at);
  }

  /** @param {number} size @returns {unknown[]} */
  list(size) {
    const items = new Array(size);
    for (let i = 0; i < size; i++) items[i] = this.value();
    return items;
  }

  /** @param {number} size unsigned big-endian of 1, 2 or 4 bytes */
  length(size) {
    const at = this.at;
    this.at += size;
    return size === 1 ? this.view.getUint8(at) : size === 2 ? this.view.getUint16(at) : this.view.getUint32(at);
  }

  /** @returns {unknown} */
  value() {
    const view = this.view;
    const byte = this.length(1);
    if (byte < 0x80) return byte;
    if (byte >= 0xe0) return byte - 0x100;
    if (byte >= 0xa0 && byte < 0xc0) return this.text(byte & 0x1f);
    if (byte >= 0x90 && byte < 0xa0) return this.list(byte & 0x0f);
    const at = this.at;
    switch (byte) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return this.blob(this.length(1 << (byte - 0xc4)));
      case 0xca: this.at += 4; return view.getFloat32(at);
      case 0xcb: this.at += 8; return view.getFloat64(at);
      case 0xcc: case 0xcd: case 0xce: return this.length(1 << (byte - 0xcc));
      // Times and sample numbers stay far below 2**53; an epoch may lose its last digits and still differ from the next.
      case 0xcf: this.at += 8; return Number(view.getBigUint64(at));
      case 0xd0: this.at += 1; return view.getInt8(at);
      case 0xd1: this.at += 2; return view.getInt16(at);
      case 0xd2: this.at += 4; return view.getInt32(at);
      case 0xd3: this.at += 8; return Number(view.getBigInt64(at));
      case 0xd9: case 0xda: case 0xdb: return this.text(this.length(1 << (byte - 0xd9)));
      case 0xdc: case 0xdd: return this.list(this.length(byte === 0xdc ? 2 : 4));
      default: throw new RangeError(`byte 0x${byte.toString(16)} at ${at - 1} is no message of ours`);
    }
  }
}

/**
 * @param {ArrayBuffer} buffer one websocket frame
 * @returns {Generator<{type: string, [field: string]: any}>}
 */
export function* messages(buffer) {
  const reader = new Reader(buffer);
  if (reader.length(1) !== 0xdd) throw new RangeError("no frame of ours");
  for (let left = reader.length(4); left > 0; left--) {
    const row = /** @type {unknown[]} */ (reader.value());
    const type = /** @type {string} */ (row[0]);
    const names = FIELDS[type];
    if (!names) continue;
    /** @type {{type: string, [field: string]: any}} */
    const message = { type };
    for (let i = 0; i < names.length; i++) message[names[i]] = row[i + 1];
    yield message;
  }
}
