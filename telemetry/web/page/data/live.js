// The WebSocket to the server: one miner is subscribed at a time; a connection that is lost, or silent, is made anew.

import { setServerTime, serverTime } from "./clock.js";

const SILENCE = 12_000; // ms; the server ticks every 5 s
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15_000;

/** Follows one miner. `take` is given each message; `mayOpen` is asked before each connection after the first. */
export class Live {
  constructor({ take, mayOpen, onState }) {
    Object.assign(this, { take, mayOpen, onState });
    this.state = "connecting"; // then `live` or `cut`
    this.heard = 0;
    this.minerId = null;
    this.socket = null;
    this.wait = FIRST_WAIT;
    this.timer = null;
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry());
  }

  /** Connect. */
  open() {
    this.close();
    const address = new URL("api/live", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = (this.socket = new WebSocket(address));
    this.expectWord();
    socket.onopen = () => this.minerId !== null && this.say({ subscribe: this.minerId });
    socket.onmessage = (event) => {
      if (this.socket !== socket) return;
      this.expectWord();
      this.hear(JSON.parse(event.data));
    };
    socket.onclose = () => this.socket === socket && this.lose();
  }

  /** End the connection, and make no other. */
  close() {
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    this.timer = null;
    const { socket } = this;
    this.socket = null;
    socket?.close();
  }

  /** Follow a miner instead of the one before; null follows none. */
  follow(minerId) {
    if (this.minerId === minerId) return;
    const isOpen = this.socket?.readyState === WebSocket.OPEN;
    if (isOpen && this.minerId !== null) this.say({ unsubscribe: this.minerId });
    if (isOpen && minerId !== null) this.say({ subscribe: minerId });
    this.minerId = minerId;
  }

  say(message) {
    this.socket.send(JSON.stringify(message));
  }

  hear(message) {
    const time = message.tick ?? message.time;
    if (time !== undefined) {
      setServerTime(time);
      this.heard = time;
    }
    this.wait = FIRST_WAIT;
    this.become("live");
    this.take(message);
  }

  expectWord() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.lose(), SILENCE);
  }

  lose() {
    if (this.state === "live") this.heard = serverTime();
    this.close();
    this.become("cut");
    // Spread, so that browsers do not come back all at once.
    this.timer = setTimeout(() => this.reopen(), this.wait * (0.5 + Math.random()));
    this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
  }

  async reopen() {
    this.timer = null;
    try {
      if (await this.mayOpen()) this.open();
    } catch {
      this.lose();
    }
  }

  // What waits for its time is tried at once: the network, or the person, came back.
  hurry() {
    if (this.timer === null) return;
    clearTimeout(this.timer);
    this.reopen();
  }

  become(state) {
    if (this.state === state) return;
    this.state = state;
    this.onState();
  }
}
