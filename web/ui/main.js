// The page: one connection, one loop, and what the address asks for.
// @ts-check
import { Acts } from "./acts.js";
import { Bar } from "./bar.js";
import { h, mark, put } from "./dom.js";
import { age, clock, kindName } from "./format.js";
import { Files } from "./files.js";
import { Link } from "./link.js";
import { AlarmList } from "./list.js";
import { Patient } from "./patient.js";
import { Prefs } from "./prefs.js";
import { Signals, flash } from "./signals.js";
import { Palette } from "./sweep.js";
import { T } from "./texts.js";
import { Tools } from "./tools.js";
import { Wall } from "./wall.js";
import { Ward, level, waits } from "./ward.js";

const LAG_MS = 2000;
const LOST_SOUND_MS = 10_000;

const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

async function start() {
  const answer = await fetch("/api/session", { cache: "no-store" });
  if (answer.status === 401) {
    location.assign("/login");
    return;
  }
  const session = await answer.json();
  const prefs = new Prefs(session.user);
  document.documentElement.dataset.theme = prefs.theme;
  await document.fonts.load("700 11px Inter").catch(() => undefined);
  const palette = new Palette();
  const ward = new Ward();
  ward.name = session.ward;
  const acts = new Acts(ward, session.csrf);
  const signals = new Signals();
  const link = new Link(ward);
  const bar = new Bar(byId("bar"), ward, acts);
  flash();

  const page = byId("page");
  /** @type {Wall | Patient | AlarmList | Files} */
  let view;
  const route = () => {
    view?.close();
    const path = location.pathname;
    if (path.startsWith("/patient/")) view = new Patient(decodeURIComponent(path.slice(9)), ward, link, acts, prefs, palette);
    else if (path === "/alarms") view = new AlarmList(ward, link, acts);
    else if (path === "/files") view = new Files(acts, palette);
    else view = new Wall(ward, link, prefs, palette);
    page.replaceChildren(view.root);
    tools.draw(path, view);
    document.title = `${view instanceof Patient ? view.name : view instanceof AlarmList ? T.alarms : view instanceof Files ? T.files : ward.name} · ${T.product}`;
  };
  const go = (/** @type {string} */ path) => {
    if (path !== location.pathname) history.pushState(null, "", path);
    route();
  };
  const tools = new Tools(byId("tools"), {
    ward, prefs, signals,
    go,
    theme: () => {
      prefs.theme = prefs.theme === "dark" ? "light" : "dark";
      document.documentElement.dataset.theme = prefs.theme;
      Object.assign(palette, new Palette());
      view.recolour();
    },
    logout: () => acts.logout(),
  });
  route();
  addEventListener("popstate", route);
  document.addEventListener("click", (event) => {
    const link = /** @type {Element} */ (event.target).closest("a[href^='/']");
    if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(/** @type {string} */ (link.getAttribute("href")));
  });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || tools.dialogOpen) return;
    const act = {
      a: () => bar.first && acts.acknowledge(bar.first.id),
      w: () => go("/"),
      l: () => go("/alarms"),
      Escape: () => go("/"),
      t: () => tools.parts.theme(),
      "?": () => tools.help(),
      0: () => tools.density(0),
      4: () => tools.density(4),
      9: () => tools.density(9),
    }[event.key];
    if (act && !event.repeat) act();
  });

  // Sound and speech follow the most urgent alarm that waits.
  const spoken = byId("spoken");
  const announced = new Set();
  /** @type {Map<string, number>} */
  const asked = new Map();
  /** @param {number} priority @returns {import("./signals.js").Tone | null} */
  const tone = (priority) => (priority >= 3 ? "high" : priority === 2 ? "medium" : priority === 1 ? "low" : null);
  const sound = () => {
    const waiting = ward.open().filter(waits);
    const lost = link.state === "lost" && ward.synced && ward.now() - link.lostAt > LOST_SOUND_MS;
    // A medium alarm that is over stays as a silent message; a high one goes on sounding. A pause ends by itself.
    const loud = waiting.filter((alarm) => (alarm.presence === "on" || alarm.priority >= 3) && alarm.silent_until_ms <= ward.now());
    const top = Math.max(lost ? 2 : 0, ...loud.map((alarm) => alarm.priority));
    signals.set(tone(top), Math.max(0, ...loud.map((alarm) => alarm.escalation)));
    // An acknowledged alarm that asks again (a reminder) sounds once.
    for (const alarm of ward.alarms.values()) {
      const before = asked.get(alarm.id);
      asked.set(alarm.id, alarm.announced_ms);
      if (before !== undefined && alarm.presence === "ack" && alarm.announced_ms > before) signals.burst(tone(alarm.priority) ?? "low");
    }
    for (const id of asked.keys()) if (!ward.alarms.has(id)) asked.delete(id);
    for (const alarm of waiting) {
      if (announced.has(alarm.id)) continue;
      announced.add(alarm.id);
      if (level(alarm) === "high" || level(alarm) === "medium") put(spoken, `${alarm.patient}: ${kindName(alarm.kind)}`);
    }
    for (const id of announced) if (!ward.alarms.has(id)) announced.delete(id);
  };
  ward.addEventListener("alarms", sound);

  const banner = byId("banner");
  const foot = byId("foot");
  const conn = h("span", { class: "conn" });
  const drops = h("span");
  foot.replaceChildren(conn, drops, h("span", { class: "grow" }), h("span", { class: "device" }, T.notDevice));
  const health = () => {
    let text = "";
    let soft = false;
    if (link.state === "lost") text = T.connLost(clock(link.lostAt));
    else if (link.state === "live") {
      soft = true;
      if (ward.feedAgeMs > LAG_MS) text = T.feedDead(age(ward.feedAgeMs));
      else if (ward.lagMs > LAG_MS) text = T.connLag(age(ward.lagMs));
      else if (ward.busLagMs > LAG_MS) text = T.busLag(age(ward.busLagMs));
    }
    banner.hidden = !text;
    banner.className = soft ? "warn" : "";
    put(banner, text);
    put(conn, link.state === "live" ? T.connected : link.state === "lost" ? T.connLost(clock(link.lostAt)) : T.loading);
    mark(conn, "data-state", link.state);
    put(drops, ward.dropped ? T.dropped(ward.dropped) : "");
  };
  link.addEventListener("state", () => {
    health();
    sound();
  });

  const statistics = { frames: 0, longest: 0 };
  let before = performance.now();
  const frame = (/** @type {number} */ now) => {
    statistics.frames++;
    statistics.longest = Math.max(statistics.longest, now - before);
    before = now;
    for (const bed of ward.beds.values()) bed.trace.advance(now);
    view.frame(now);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  setInterval(() => {
    view.tick();
    bar.tick();
    tools.tick();
    health();
    sound();
  }, 500);
  // For tests and for people at the console; nothing in the page reads it.
  Object.assign(window, { rhythmwatch: { ward, link, signals, statistics, view: () => view } });
}

start();
