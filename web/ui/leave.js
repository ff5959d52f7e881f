// The way out to the log-in.
// @ts-check
let leaving = false;

/** Go to the log-in, once: the log-out and the socket that it closes both ask for it, and a second order aborts the first. */
export function leave() {
  if (leaving) return;
  leaving = true;
  location.assign("/login");
}
