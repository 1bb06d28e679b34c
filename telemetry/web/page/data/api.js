// What is asked of the server over HTTP. Every address is relative, so that a proxy may put the page under a path.

/** The server's answer was an error: `status` of HTTP (0: there was no answer), and its one line. */
export class ApiError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** Get JSON; values of `query` that are undefined are left out, lists become several. */
export async function get(path, query = {}) {
  const pairs = Object.entries(query).flatMap(([name, value]) => [value].flat().filter((one) => one !== undefined).map((one) => [name, one]));
  return answer(await ask(pairs.length ? `${path}?${new URLSearchParams(pairs)}` : path, {}));
}

/** Post JSON. */
export async function post(path, body = {}) {
  const headers = { "Content-Type": "application/json" };
  return answer(await ask(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

async function ask(path, options) {
  try {
    return await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(20_000) });
  } catch (error) {
    throw new ApiError(0, error.message);
  }
}

async function answer(response) {
  const text = await response.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    throw new ApiError(response.status, `${response.status} ${response.statusText}`);
  }
  if (!response.ok) throw new ApiError(response.status, body?.error ?? `${response.status} ${response.statusText}`);
  return body;
}
