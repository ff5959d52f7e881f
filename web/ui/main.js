// The page: one connection, one loop, and what the address asks for.
// @ts-check
import { Acts } from "./acts.js";
import { Api } from "./api.js";
import { Bar } from "./bar.js";
import { Health } from "./health.js";
import { leave } from "./leave.js";
import { Link } from "./link.js";
import { pageOf } from "./routes.js";
import { Prefs } from "./prefs.js";
import { Signals, flash } from "./signals.js";
import { Sounding } from "./sounding.js";
import { Stays } from "./stays.js";
import { Palette } from "./palette.js";
import { screen } from "./sweep.js";
import { T } from "./texts.js";
import { Tools } from "./tools.js";
import { Ward } from "./ward.js";

const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const FIELDS = "input, select, textarea, [contenteditable]";

async function start() {
  const answer = await fetch("/api/session", { cache: "no-store" });
  if (answer.status === 401) {
    leave();
    return;
  }
  const session = await answer.json();
  const prefs = new Prefs(session.user);
  document.documentElement.dataset.theme = prefs.theme;
  screen.pxPerMm = prefs.pxPerMm ?? screen.pxPerMm;
  await document.fonts.load("700 11px Inter").catch(() => undefined);
  const ward = new Ward();
  ward.name = session.ward;
  const api = new Api(session.csrf);
  /** @type {import("./view.js").Parts} */
  const parts = {
    ward, api, prefs, session,
    palette: new Palette(),
    acts: new Acts(ward, api),
    signals: new Signals(),
    link: new Link(ward),
    stays: new Stays(api, ward),
    go: (path) => {
      if (path !== location.pathname + location.search) history.pushState(null, "", path);
      route();
    },
  };
  const { link, palette } = parts;
  const bar = new Bar(byId("bar"), parts);
  const health = new Health(parts, byId("banner"), byId("foot"));
  const sounding = new Sounding(parts, byId("spoken"));
  flash();

  /** @type {import("./view.js").View | undefined} */
  let view;
  const theme = () => {
    prefs.theme = prefs.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = prefs.theme;
    Object.assign(palette, new Palette());
    view?.recolour();
  };
  const tools = new Tools(byId("tools"), { ...parts, theme });
  const route = () => {
    view?.close();
    view = pageOf(location, parts);
    byId("page").replaceChildren(view.root);
    tools.draw(location.pathname, view);
    document.title = `${view.title} · ${T.product}`;
  };
  route();
  addEventListener("popstate", route);
  document.addEventListener("click", (event) => {
    const link = /** @type {Element} */ (event.target).closest("a[href^='/']:not([download])");
    if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    parts.go(/** @type {string} */ (link.getAttribute("href")));
  });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key !== "Escape" && /** @type {Element} */ (event.target).closest?.(FIELDS)) return;
    if (view?.key(event)) {
      event.preventDefault();
      return;
    }
    const act = {
      a: () => bar.acknowledge(),
      p: () => bar.sound(),
      w: () => parts.go("/"),
      l: () => parts.go("/alarms"),
      r: () => parts.go("/review"),
      Escape: () => parts.go("/"),
      t: theme,
      "?": () => parts.go("/help"),
      0: () => tools.density(0),
      4: () => tools.density(4),
      9: () => tools.density(9),
    }[event.key];
    if (act && !event.repeat) act();
  });

  ward.addEventListener("alarms", () => sounding.follow());
  link.addEventListener("state", () => {
    health.tick();
    sounding.follow();
  });

  const statistics = { frames: 0, longest: 0 };
  let before = performance.now();
  const frame = (/** @type {number} */ now) => {
    statistics.frames++;
    statistics.longest = Math.max(statistics.longest, now - before);
    before = now;
    for (const bed of ward.beds.values()) bed.trace.advance(now);
    view?.frame(now);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  setInterval(() => {
    view?.tick();
    bar.tick();
    tools.tick();
    health.tick();
    sounding.follow();
  }, 500);
  // For tests and for people at the console; nothing in the page reads it.
  Object.assign(window, { rhythmwatch: { ward, link, signals: parts.signals, stays: parts.stays, statistics, view: () => view } });
}

start();
