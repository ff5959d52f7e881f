// Dialogs and fields. A dialog says whom it is about and what is lost; it closes only when the server has agreed.
// @ts-check
import { h, put } from "./dom.js";
import { T } from "./texts.js";

let number = 0;

/**
 * A field with its label.
 * @param {string} text
 * @param {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} input
 * @param {string} [hint]
 */
export function field(text, input, hint = "") {
  input.id ||= `field-${++number}`;
  input.classList.add("field");
  return h("div", { class: "labelled" }, h("label", { for: input.id }, text), input, hint ? h("small", {}, hint) : null);
}

/** @param {[string, string][]} options value and text @param {string} value */
export function select(options, value = "") {
  const list = h("select", {}, ...options.map(([of, text]) => h("option", { value: of }, text)));
  list.value = value;
  return list;
}

/**
 * Ask in a dialog.
 * @param {{title: string, body?: (Node | string)[], submit: string, danger?: boolean, act?: () => Promise<unknown>, wide?: boolean, only?: boolean}} asked
 *   what is done on submit; its error is shown and the dialog stays. `only`: nothing is asked, so nothing can be cancelled
 * @returns {Promise<boolean>} whether it was done
 */
export function ask({ title, body = [], submit, danger = false, act, wide = false, only = false }) {
  const id = `dialog-${++number}`;
  const refused = h("p", { class: "refused", role: "alert", hidden: true });
  const button = h("button", { class: danger ? "act danger" : "act", type: "submit" }, submit);
  const cancel = h("button", { class: "plain", type: "button", onclick: () => dialog.close() }, T.cancel);
  const form = h("form", {}, h("h2", { id }, title), ...body, refused, h("div", { class: "row dialog-foot" }, only ? null : cancel, button));
  const dialog = h("dialog", { "aria-labelledby": id, class: wide ? "wide" : null }, form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    let done = false;
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(done);
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      button.disabled = true;
      refused.hidden = true;
      try {
        await act?.();
        done = true;
        dialog.close();
      } catch (error) {
        refused.hidden = false;
        put(refused, error instanceof Error ? error.message : String(error));
        button.disabled = false;
      }
    });
    dialog.showModal();
  });
}

/** Show something once, to be closed by a person. @param {string} title @param {(Node | string)[]} body */
export function tell(title, body) {
  return ask({ title, body, submit: T.close, only: true });
}

/** One line about something that failed. @param {unknown} error */
export const failure = (error) => h("p", { class: "refused", role: "alert" }, error instanceof Error ? error.message : String(error));

/** @param {string[]} heads @param {(Node | string)[][]} rows @param {string} empty what is said without rows */
export function table(heads, rows, empty) {
  if (!rows.length) return h("p", { class: "none" }, empty);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": heads.filter(Boolean).join(", ") }, h("table", {},
    h("thead", {}, h("tr", {}, ...heads.map((text) => (text ? h("th", { scope: "col" }, text) : h("td", {}))))),
    h("tbody", {}, ...rows.map((cells) => h("tr", {}, ...cells.map((cell) => h("td", {}, cell)))))));
}
