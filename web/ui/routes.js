// Which address shows which page.
// @ts-check
import { Files } from "./files.js";
import { Help } from "./help.js";
import { AlarmList } from "./list.js";
import { Admin } from "./admin.js";
import { Admit } from "./admit.js";
import { Disclosure } from "./disclosure.js";
import { LoadPage } from "./load.js";
import { Patient } from "./patient.js";
import { Review } from "./review.js";
import { Wall } from "./wall.js";

/** @param {Location} location @param {import("./view.js").Parts} parts @returns {import("./view.js").View} */
export function pageOf(location, parts) {
  const path = location.pathname;
  if (path.startsWith("/patient/")) return new Patient(decodeURIComponent(path.slice(9)), parts);
  if (path === "/alarms") return new AlarmList(parts);
  if (path === "/files") return new Files(parts);
  if (path === "/review") return new Review(parts);
  if (path.startsWith("/review/")) return new Disclosure(decodeURIComponent(path.slice(8)), parts);
  if (path === "/load") return new LoadPage(parts);
  if (path === "/admit") return new Admit(parts);
  if (path === "/admin") return new Admin(parts);
  if (path === "/help") return new Help(parts);
  return new Wall(parts);
}
