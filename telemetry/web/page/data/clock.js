// The server's time, from its ticks. The browser's clock is never asked: it may be wrong, and stale data must not look fresh.

let told = 0;
let at = 0;

/** Take in the server's time (Unix ms). */
export function setServerTime(time) {
  told = time;
  at = performance.now();
}

/** The server's time now (Unix ms); 0 before it was told. It goes on while the connection is cut off, so that ages grow. */
export function serverTime() {
  return told && told + (performance.now() - at);
}
