// A canvas wants colours, not the names that the style sheet gives them.

import { make } from "./dom.js";

/** The style sheet's colours with such names (`--muted`), as they are now. */
export function colours(element, names) {
  const probe = element.appendChild(make("span"));
  const found = {};
  for (const name of names) {
    probe.style.color = `var(${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}
