// Addresses within the page: `#/`, `#/f01234`, `#/f01234?queue`, `#/f01234/seal01`.

/** The views of a miner; `overview` is the one without a name in its address. */
export const VIEWS = ["overview", "queue", "history", "events", "quality", "fields"];

/** Where an address leads: {minerId, host, view}; what is not there is null. */
export function parseRoute(hash) {
  const [path, view = ""] = hash.replace(/^#\/?/, "").split("?");
  const [minerId, host] = path.split("/").map(decoded);
  return { minerId: minerId || null, host: host || null, view: VIEWS.includes(view) ? view : "overview" };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a miner's view. */
export const minerRoute = (minerId, view = "overview") => `#/${encodeURIComponent(minerId)}${view === "overview" ? "" : `?${view}`}`;

/** The address of a host. */
export const hostRoute = (minerId, host) => `#/${encodeURIComponent(minerId)}/${encodeURIComponent(host)}`;
