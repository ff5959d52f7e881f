// The way out to the log-in.
// @ts-check
let leaving = false;
let forGood = false;

/**
 * Go to the log-in, once: the log-out and the socket that it closes both ask for it, and a second order aborts the first.
 * Who was logged out by time or by an admin comes back to where they were.
 */
export function leave() {
  if (leaving) return;
  leaving = true;
  const here = location.pathname + location.search;
  location.assign(here === "/" || forGood ? "/login" : `/login?target=${encodeURIComponent(here)}`);
}

/** The next log-in may be somebody else's: it begins at the wall. */
export function forget() {
  forGood = true;
}
