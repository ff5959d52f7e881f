// Making elements without a framework: text is always text, never markup.
// @ts-check

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [props] class, dataset values, attributes, on* listeners
 * @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on") && typeof value === "function") {
      element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    } else if (name === "class") element.className = String(value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(.../** @type {(Node | string)[]} */ (children.filter((child) => child !== null)));
  return element;
}

/** Set text only where it changed. @param {Node} node @param {string} text */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set or take off an attribute only where it changed. @param {Element} element @param {string} name @param {string | null} value */
export function mark(element, name, value) {
  if (value === null) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

const SVG = "http://www.w3.org/2000/svg";
const SHAPES = {
  high: "M8 1h8l7 7v8l-7 7H8l-7-7V8z",
  medium: "M12 1.5 23.5 22h-23z",
  low: "M12 1a11 11 0 1 1 0 22 11 11 0 0 1 0-22z",
  technical: "M2 2h20v20H2z",
};
const SIGNS = { high: "!!!", medium: "!!", low: "!", technical: "×" };

/**
 * Sign of an alarm: a shape and marks of its own for each priority, so that colour is never the only sign.
 * @param {"high" | "medium" | "low" | "technical"} level
 */
export function sign(level) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `sign sign-${level}`);
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", SHAPES[level]);
  const text = document.createElementNS(SVG, "text");
  text.setAttribute("x", "12");
  text.setAttribute("y", level === "medium" ? "19.5" : "17");
  text.setAttribute("text-anchor", "middle");
  text.textContent = SIGNS[level];
  svg.append(shape, text);
  return svg;
}
