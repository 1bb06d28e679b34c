// Elements are made once and written to only where something differs. No markup is ever made of data.

/** Make an element: `make("td.number", {title: "…"}, "text", child)`. Attributes that are null or false are left out. */
export function make(selector, attributes = {}, ...children) {
  const [tag, ...classes] = selector.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** An icon of the few that there are, drawn with lines; for the eye only. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS(svg.namespaceURI, "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" })) svg.setAttribute(key, value);
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

const ICONS = {
  online: "M3 8.5l3.2 3.2L13 5",
  stale: "M8 3.5V8l3 2M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0z",
  stopped: "M4 4h8v8H4z",
  lost: "M4 4l8 8M12 4l-8 8",
  warning: "M8 2.2L14.6 13.6H1.4zM8 6.4v3.4M8 11.6v.4",
  theme: "M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12",
  back: "M10 3L5 8l5 5",
};

/** Set an element's text, where it is another. */
export function setText(element, text) {
  if (element.shownText !== text) element.textContent = element.shownText = text;
}

/** Set an element's class, where it is another. */
export function setClass(element, name) {
  if (element.shownClass !== name) element.className = element.shownClass = name;
}

/** Set an attribute, where it is another; null removes it. */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Set how full a bar is, 0 to 1. */
export function setShare(element, share) {
  const shown = Math.round(Math.min(1, Math.max(0, share || 0)) * 200) / 200;
  if (element.shownShare !== shown) element.style.setProperty("--share", (element.shownShare = shown));
}
