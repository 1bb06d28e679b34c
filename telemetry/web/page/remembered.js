// What a person chose, kept in this browser; where it keeps nothing, the choice lasts as long as the page.

const chosen = new Map();

/** What was chosen under a name; null where nothing was. */
export function remembered(name) {
  try {
    return chosen.get(name) ?? localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Keep a choice. */
export function remember(name, value) {
  chosen.set(name, value);
  try {
    localStorage.setItem(name, value);
  } catch {
    // Storage is blocked, or full.
  }
}
