// Keys, signs and sounds: what they are, and a test of each.
// @ts-check
import { h, put, sign } from "./dom.js";
import { calibration } from "./calibrate.js";
import { field } from "./forms.js";
import { T } from "./texts.js";
import { BEATS, LEVELS, ROLES } from "./vocabulary.js";
import { View } from "./view.js";

export class Help extends View {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.help);
    const { signals } = parts;
    this.warning = h("p", { class: "refused", role: "alert" }, T.soundBlocked);
    this.played = h("span", { "aria-live": "polite", class: "note" });
    const test = (/** @type {import("./signals.js").Tone} */ tone, /** @type {string} */ text) =>
      h("button", { class: "plain", type: "button", onclick: () => {
        signals.unlock();
        signals.burst(tone);
        this.played.textContent = signals.allowed ? T.soundPlayed(text) : T.soundBlocked;
      } }, text);
    const marks = Object.values(BEATS).map(({ letter, name, token }) => {
      const b = h("b", { class: "cls" }, letter);
      b.style.color = `var(${token})`;
      return h("p", {}, b, ` ${name}`);
    });
    this.root = h("div", { class: "page help" }, h("h1", {}, T.help),
      h("div", { class: "columns" },
        h("section", { class: "card pad" }, h("h2", {}, T.keys), ...T.helpLines.map(([key, text]) => h("p", {}, h("kbd", {}, key), text))),
        h("section", { class: "card pad" }, h("h2", {}, T.sound), this.warning, h("p", {}, T.soundHelp),
          h("div", { class: "row" }, test("high", T.soundHigh), test("medium", T.soundMedium), test("low", T.soundLow)), this.played),
        h("section", { class: "card pad" }, h("h2", {}, T.signs), ...LEVELS.map(({ level, text }) =>
          h("p", { class: "what", "data-level": level }, sign(level), h("span", {}, text)))),
        h("section", { class: "card pad" }, h("h2", {}, T.beatMarks), ...marks),
        account(parts), calibration(parts)));
    this.on(signals, "allowed", () => this.tick());
    parts.link.watch([], null);
    this.tick();
  }

  tick() {
    this.warning.hidden = this.parts.signals.allowed;
  }
}

/** The own account and its password. @param {import("./view.js").Parts} parts */
function account({ api, session }) {
  const old = h("input", { type: "password", required: true, maxlength: "256", autocomplete: "current-password" });
  const fresh = h("input", { type: "password", required: true, maxlength: "256", autocomplete: "new-password" });
  const said = h("p", { class: "note", role: "status" });
  const form = h("form", {}, field(T.oldPassword, old), field(T.newPassword, fresh, T.newPasswordHint), h("button", { class: "plain", type: "submit" }, T.changePassword), said);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const told = await api.post("/api/password", { old: old.value, new: fresh.value });
      api.csrf = told.csrf;
      form.reset();
      put(said, T.passwordChanged);
    } catch (error) {
      put(said, error instanceof Error ? error.message : String(error));
    }
  });
  return h("section", { class: "card pad" }, h("h2", {}, T.yourAccount), h("p", {}, T.loggedInAs(session.user, ROLES[session.role] ?? session.role)), form);
}
