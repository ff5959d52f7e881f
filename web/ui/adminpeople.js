// Accounts of people and tokens of programs.
// @ts-check
import { part } from "./api.js";
import { h, put } from "./dom.js";
import { field, select, table, tell } from "./forms.js";
import { clock } from "./format.js";
import { Section } from "./section.js";
import { T } from "./texts.js";
import { ROLES } from "./vocabulary.js";

const OPTIONS = /** @type {[string, string][]} */ (Object.entries(ROLES));

export class Users extends Section {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.users, "/api/users");
    const name = h("input", { required: true, maxlength: "64", autocomplete: "off" });
    const password = h("input", { type: "password", required: true, minlength: "10", maxlength: "256", autocomplete: "new-password" });
    const role = select(OPTIONS, "viewer");
    this.head.append(this.form([field(T.userName, name), field(T.password, password, T.passwordHint), field(T.role, role)], T.addUser,
      () => parts.api.post("/api/users", { name: name.value, password: password.value, role: role.value })));
  }

  /** @param {any[]} users */
  show(users) {
    const { api } = this.parts;
    return [table([T.userName, T.role, T.colState, T.made, ""], users.map((user) => {
      const role = select(OPTIONS, user.role);
      role.className = "field";
      role.setAttribute("aria-label", `${T.role}: ${user.name}`);
      const said = h("span", { class: "note", role: "status" });
      role.addEventListener("change", async () => {
        try {
          await api.patch(`/api/users/${part(user.name)}`, { role: role.value });
          put(said, T.done);
        } catch (error) {
          role.value = user.role;
          put(said, error instanceof Error ? error.message : String(error));
        }
      });
      const off = user.disabled;
      return [user.name, h("div", { class: "row" }, role, said), off ? T.switchedOff : T.switchedOn, user.made_ms ? clock(user.made_ms) : "–", h("div", { class: "row" },
        this.button(off ? T.switchOn : T.switchOff, user.name, { title: T.userOff(user.name, off), loses: T.userOffLoses(off), danger: !off },
          () => api.patch(`/api/users/${part(user.name)}`, { disabled: !off })),
        this.button(T.remove, user.name, { title: T.removeOf(user.name), loses: T.removeUserLoses }, () => api.delete(`/api/users/${part(user.name)}`)))];
    }), T.noneAll)];
  }
}

export class Tokens extends Section {
  /** @param {import("./view.js").Parts} parts */
  constructor(parts) {
    super(parts, T.tokens, "/api/tokens");
    const label = h("input", { required: true, maxlength: "64", autocomplete: "off" });
    const role = select(OPTIONS, "viewer");
    const days = h("input", { type: "number", min: "1", max: "366", value: "90", required: true });
    this.head.append(this.form([field(T.tokenFor, label), field(T.role, role), field(T.validDays, days)], T.makeToken, async () => {
      const made = await parts.api.post("/api/tokens", { label: label.value, role: role.value, days: days.valueAsNumber });
      tell(T.tokenOnce, [h("p", {}, T.shownOnce), h("p", { class: "secret" }, made.secret)]);
    }));
  }

  /** @param {any[]} tokens */
  show(tokens) {
    return [table([T.tokenFor, T.role, T.madeBy, T.validUntil, ""], tokens.map((token) => [token.label, ROLES[token.role] ?? token.role, token.made_by, clock(token.until_ms),
      this.button(T.remove, token.label, { title: T.removeOf(token.label), loses: T.removeTokenLoses }, () => this.parts.api.delete(`/api/tokens/${part(token.id)}`))]), T.noTokens)];
  }
}
