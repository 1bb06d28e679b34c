// Writing to the document happens once an animation frame, however much came in.

let asked = false;
let draw = () => {};

/** Say what draws. */
export function drawWith(callback) {
  draw = callback;
}

/** Ask for a frame. */
export function askForFrame() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw();
  });
}
