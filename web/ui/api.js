// Questions and orders to the server's JSON routes. A refusal becomes an Error whose message is for people.
// @ts-check
import { leave } from "./leave.js";
import { T } from "./texts.js";

/** The server said no, or nothing. */
export class Refused extends Error {
  /** @param {string} text @param {number} status 0 = no answer */
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

/** One segment of an address. @param {string} text */
export const part = (text) => encodeURIComponent(text);

/** An alarm's id holds slashes, which stay. @param {string} id */
export const alarmPath = (id) => id.split("/").map(encodeURIComponent).join("/");

/** Query of an address; what is null or "" is left out. @param {Record<string, unknown>} values */
export function query(values) {
  const pairs = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return pairs.length ? `?${new URLSearchParams(pairs.map(([name, value]) => [name, String(value)]))}` : "";
}

export class Api {
  /** @param {string} csrf */
  constructor(csrf) {
    this.csrf = csrf;
  }

  /** @param {string} path @returns {Promise<any>} */
  get(path) {
    return this.send("GET", path);
  }

  /** @param {string} path @param {unknown} [body] @returns {Promise<any>} */
  post(path, body) {
    return this.send("POST", path, body);
  }

  /** @param {string} path @param {unknown} body @returns {Promise<any>} */
  put(path, body) {
    return this.send("PUT", path, body);
  }

  /** @param {string} path @param {unknown} body @returns {Promise<any>} */
  patch(path, body) {
    return this.send("PATCH", path, body);
  }

  /** @param {string} path @returns {Promise<any>} */
  delete(path) {
    return this.send("DELETE", path);
  }

  /** @param {string} method @param {string} path @param {unknown} [body] @returns {Promise<any>} */
  async send(method, path, body) {
    /** @type {Record<string, string>} */
    const headers = method === "GET" ? {} : { "X-CSRF-Token": this.csrf };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    /** @type {Response} */
    let answer;
    try {
      answer = await fetch(path, { method, headers, cache: "no-store", body: body === undefined ? null : JSON.stringify(body) });
    } catch {
      throw new Refused(T.noAnswer, 0);
    }
    if (answer.status === 401) leave();
    const told = await answer.json().catch(() => null);
    if (!answer.ok) throw new Refused(detail(told) || T.refusedBy(answer.status), answer.status);
    return told;
  }
}

/** One line out of an error's body. @param {any} told */
function detail(told) {
  if (typeof told?.detail === "string") return told.detail;
  if (!Array.isArray(told?.detail)) return "";
  return told.detail.map((/** @type {any} */ one) => `${(one.loc ?? []).slice(1).join(" ")}: ${one.msg}`).join("; ");
}
