// All hosts at a glance, a square each, always in the same place: its shade is the load, its sign what is wrong.

import { isProblem } from "../data/judge.js";
import { colours } from "../draw/colours.js";
import { make, setAttribute, setText } from "../draw/dom.js";
import { formatNumber } from "../format.js";
import { compareNames, word } from "../words.js";

/** With fewer hosts than these the rows say as much. */
export const LEAST_HOSTS = 60;

const REDRAW = 1000; // ms
// The pitch of the squares in px, for up to so many hosts.
const PITCHES = [[1500, 16], [5000, 11], [Infinity, 7]];
const NAMES = ["--bar", "--track", "--bad", "--warn", "--surface", "--muted"];

/** The map; `onOpen` is called with the name of a host that is chosen. */
export class FleetMap {
  constructor(onOpen) {
    this.canvas = make("canvas", { role: "img" });
    this.tip = make("span.map-tip");
    this.element = make("div.fleet-map", {}, this.canvas, make("p.map-note", {}, make("span", {}, word("mapNote")), this.tip));
    this.hosts = [];
    this.canvas.addEventListener("click", (event) => this.at(event) && onOpen(this.at(event).host));
    this.canvas.addEventListener("pointermove", (event) => this.tell(this.at(event)));
    this.canvas.addEventListener("pointerleave", () => this.tell(null));
  }

  /** Draw the hosts, once a second at most; `attention` has how much each asks for. */
  draw(hosts, attention) {
    this.element.hidden = hosts.length < LEAST_HOSTS;
    const width = this.element.clientWidth;
    const isDue = performance.now() - (this.drawnAt ?? -REDRAW) >= REDRAW;
    if (this.element.hidden || !width || (!isDue && width === this.width)) return;
    this.drawnAt = performance.now();
    // A snapshot brings new records under the same names.
    if (hosts.length !== this.hosts.length || !hosts.every((record) => this.known.has(record))) {
      this.hosts = [...hosts].sort((one, other) => compareNames(one.host, other.host));
      this.known = new Set(hosts);
    }
    this.lay(width);
    this.paint(attention);
    const problems = hosts.filter((record) => isProblem(attention.get(record) ?? 0)).length;
    setAttribute(this.canvas, "aria-label", word("mapLabel", { n: formatNumber(hosts.length, "1"), m: formatNumber(problems, "1") }));
  }

  lay(width) {
    this.pitch = PITCHES.find(([most]) => this.hosts.length <= most)[1];
    this.across = Math.max(1, Math.floor(width / this.pitch));
    const height = Math.ceil(this.hosts.length / this.across) * this.pitch;
    if (this.width === width && this.height === height) return;
    [this.width, this.height] = [width, height];
    const scale = window.devicePixelRatio;
    [this.canvas.width, this.canvas.height] = [width * scale, height * scale];
    this.canvas.style.height = `${height}px`;
    this.canvas.getContext("2d").scale(scale, scale);
    this.colour = colours(this.element, NAMES);
  }

  paint(attention) {
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, this.width, this.height);
    const side = this.pitch - 2;
    this.hosts.forEach((record, place) => {
      const [x, y] = [(place % this.across) * this.pitch, Math.floor(place / this.across) * this.pitch];
      const { netState, cpuLoad } = record.fields;
      const sign = netState === "lost" ? "--bad" : isProblem(attention.get(record) ?? 0) ? "--warn" : null;
      pen.fillStyle = this.colour[sign ?? "--track"];
      pen.fillRect(x, y, side, side);
      if (sign === null && netState === "online" && cpuLoad !== undefined) {
        pen.globalAlpha = Math.min(1, cpuLoad / 100);
        pen.fillStyle = this.colour["--bar"];
        pen.fillRect(x, y, side, side);
        pen.globalAlpha = 1;
      }
      if (sign !== null) this.sign(pen, x, y, side, netState);
    });
  }

  // A cross for who is lost, a bar for who is silent, a dot for any other problem.
  sign(pen, x, y, side, netState) {
    const inset = side / 4;
    pen.strokeStyle = pen.fillStyle = this.colour["--surface"];
    pen.lineWidth = Math.max(1, side / 8);
    pen.beginPath();
    if (netState === "lost") {
      pen.moveTo(x + inset, y + inset);
      pen.lineTo(x + side - inset, y + side - inset);
      pen.moveTo(x + side - inset, y + inset);
      pen.lineTo(x + inset, y + side - inset);
    } else if (netState === "stale") {
      pen.moveTo(x + inset, y + side / 2);
      pen.lineTo(x + side - inset, y + side / 2);
    } else {
      pen.arc(x + side / 2, y + side / 2, side / 6, 0, 2 * Math.PI);
      pen.fill();
    }
    pen.stroke();
  }

  at({ offsetX, offsetY }) {
    const column = Math.floor(offsetX / this.pitch);
    return column < this.across ? this.hosts[Math.floor(offsetY / this.pitch) * this.across + column] : undefined;
  }

  tell(record) {
    const { netState, cpuLoad } = record?.fields ?? {};
    setText(this.tip, record ? `${record.host} · ${word(netState ?? "noAgent")} · CPU ${formatNumber(cpuLoad, "%", 0)}` : "");
  }
}
