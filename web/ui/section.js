// A part of the administration: a heading, a form, a table; loads itself and says what failed.
// @ts-check
import { h } from "./dom.js";
import { ask, failure } from "./forms.js";
import { T } from "./texts.js";

export class Section {
  /** @param {import("./view.js").Parts} parts @param {string} title @param {string} path of what is listed */
  constructor(parts, title, path) {
    this.parts = parts;
    this.path = path;
    this.head = h("div");
    this.body = h("div", {}, h("p", { class: "none" }, T.loadingOne));
    this.root = h("section", { class: "card pad", "aria-label": title }, h("h2", {}, title), this.head, this.body);
    this.load();
  }

  async load() {
    try {
      const told = await this.parts.api.get(this.path);
      this.body.replaceChildren(...this.show(told));
    } catch (error) {
      this.body.replaceChildren(failure(error));
    }
  }

  /** @param {any} _told @returns {Node[]} */
  show(_told) {
    return [];
  }

  /** A form in one line. @param {Node[]} fields @param {string} submit @param {() => Promise<unknown>} act */
  form(fields, submit, act) {
    const place = h("div");
    const form = h("form", { class: "inline-form" }, ...fields, h("button", { class: "act", type: "submit" }, submit));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      place.replaceChildren();
      try {
        await act();
        form.reset();
        await this.load();
      } catch (error) {
        place.replaceChildren(failure(error));
      }
    });
    return h("div", {}, form, place);
  }

  /** A button of a row that asks first. @param {string} text @param {string} whom @param {{title: string, loses: string, danger?: boolean}} asked @param {() => Promise<unknown>} act */
  button(text, whom, asked, act) {
    return h("button", { class: "plain", type: "button", "aria-label": `${text}: ${whom}`, onclick: async () => {
      const done = await ask({ title: asked.title, body: [h("p", {}, asked.loses)], submit: text, danger: asked.danger ?? true, act });
      if (done) await this.load();
    } }, text);
  }
}
