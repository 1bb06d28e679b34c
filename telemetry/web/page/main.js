// The page: it asks what fields there are, follows the miner that its address names, and draws once a frame.

import { ApiError, get, post } from "./data/api.js";
import { serverTime } from "./data/clock.js";
import { setFields } from "./data/fields.js";
import { Live } from "./data/live.js";
import { Mirror } from "./data/mirror.js";
import { askForFrame, drawWith } from "./draw/frames.js";
import { Shell } from "./draw/shell.js";
import { formatClock } from "./format.js";
import { remember, remembered } from "./remembered.js";
import { minerRoute, parseRoute } from "./route.js";
import { Events } from "./views/events.js";
import { Fields } from "./views/fields.js";
import { History } from "./views/history.js";
import { Host } from "./views/host.js";
import { Login } from "./views/login.js";
import { Miners } from "./views/miners.js";
import { Overview } from "./views/overview.js";
import { Quality } from "./views/quality.js";
import { Queue } from "./views/queue.js";
import { isChinese, language, setLanguage, word } from "./words.js";

const MINERS_REFRESH = 10_000; // ms
const FIRST_RETRY = 2_000;
const SLEPT = 5_000;
const VIEW_OF = { overview: Overview, queue: Queue, history: History, events: Events, quality: Quality, fields: Fields };
const THEMES = ["light", "dark"];

class Page {
  constructor() {
    this.mirror = null;
    this.route = null;
    this.view = null;
    this.miners = { list: [] };
    this.broker = { isLost: false, since: 0 };
    this.problem = null;
    this.user = null;
    this.scrolled = new Map();
    this.live = new Live({ take: (message) => this.take(message), mayOpen: () => this.isSignedIn(), onState: askForFrame });
    setLanguage(remembered("language") ?? navigator.language);
    setTheme(remembered("theme"));
    drawWith(() => this.draw());
    for (const event of ["scroll", "resize"]) addEventListener(event, askForFrame, { passive: true });
    addEventListener("hashchange", (event) => this.view instanceof Login || this.follow(event.oldURL));
    addEventListener("keydown", (event) => this.press(event));
    setInterval(() => this.beat(), 1000);
    this.build();
  }

  /** Ask who we are and what there is; again until the server answers. */
  async start() {
    try {
      if (!(await this.isSignedIn())) return;
      setFields(await get("api/fields"));
      await this.loadMiners();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.problem = `${word("error")}: ${error.message}`;
      askForFrame();
      setTimeout(() => this.start(), FIRST_RETRY);
      return;
    }
    this.problem = null;
    this.build();
    this.live.open();
    this.follow();
    clearInterval(this.refreshing);
    this.refreshing = setInterval(() => document.hidden || this.loadMiners().catch(() => {}), MINERS_REFRESH);
  }

  /** Whether we may see anything; where we may not, the form that asks for credentials is shown. */
  async isSignedIn() {
    const { login, user } = await get("api/session");
    this.user = user;
    if (!login || user !== null) return true;
    clearInterval(this.refreshing);
    this.live.close();
    this.mirror = this.route = this.problem = null;
    this.miners.list = [];
    this.build();
    this.show(new Login({ onSignedIn: () => this.start() }));
    return false;
  }

  async signOut() {
    await post("logout").catch(() => {});
    await this.isSignedIn();
  }

  async loadMiners() {
    this.miners.list = (await get("api/miners")).miners;
    this.writeMiners();
    askForFrame();
  }

  // --- the frame around the views ---

  build() {
    this.shell = new Shell(this.user, {
      onLanguage: () => this.switchLanguage(),
      onTheme: () => this.switchTheme(),
      onSignOut: () => this.signOut(),
      onSkip: () => this.focusHeading(),
    });
    this.shell.setRoute(this.route);
    this.writeMiners();
    document.title = word("title");
    askForFrame();
  }

  writeMiners() {
    const ids = this.miners.list.map(({ minerId }) => minerId);
    this.shell.setMiners(ids, this.mirror?.minerId ?? null);
  }

  switchLanguage() {
    setLanguage(isChinese() ? "en" : "zh-CN");
    remember("language", language());
    this.rebuild();
  }

  switchTheme() {
    const { colorScheme } = getComputedStyle(document.documentElement);
    const isDark = THEMES.includes(colorScheme) ? colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    remember("theme", isDark ? "light" : "dark");
    setTheme(remembered("theme"));
    this.rebuild();
  }

  // Views know the words and colours of the time when they were made.
  rebuild() {
    const { scrollY } = window;
    this.build();
    if (this.view instanceof Login) this.show(new Login({ onSignedIn: () => this.start() }));
    else this.follow();
    this.draw();
    scrollTo(0, scrollY);
  }

  // --- where we are ---

  follow(formerUrl) {
    if (formerUrl) this.scrolled.set(new URL(formerUrl).hash, scrollY);
    const route = parseRoute(location.hash);
    if (route.minerId === null && this.miners.list.length === 1) {
      location.replace(minerRoute(this.miners.list[0].minerId));
      return;
    }
    if (route.minerId !== (this.mirror?.minerId ?? null)) {
      this.mirror = route.minerId === null ? null : new Mirror(route.minerId);
      this.live.follow(route.minerId);
    }
    this.route = route;
    this.problem = null;
    document.title = [route.host, route.minerId, word("title")].filter(Boolean).join(" · ");
    this.shell.setRoute(route);
    this.writeMiners();
    this.show(this.viewOf(route));
    if (!formerUrl) return;
    this.draw();
    scrollTo(0, this.scrolled.get(location.hash) ?? 0);
    this.draw();
    this.focusHeading();
  }

  viewOf({ minerId, host, view }) {
    if (minerId === null) return new Miners({ miners: this.miners });
    if (host !== null) return new Host({ mirror: this.mirror, host });
    return new VIEW_OF[view]({ mirror: this.mirror });
  }

  show(view) {
    this.view?.end();
    this.view = view;
    this.shell.main.replaceChildren(view.element);
    askForFrame();
  }

  focusHeading() {
    this.shell.main.querySelector("h1")?.focus({ preventScroll: true });
  }

  press(event) {
    const isTyping = event.target.closest?.("input, select, textarea");
    if (event.key === "/" && !isTyping) {
      const filter = this.shell.main.querySelector("[data-filter]");
      if (filter) event.preventDefault();
      filter?.focus();
    } else if (event.key === "Escape" && isTyping?.value && isTyping.type === "search") {
      isTyping.value = "";
      isTyping.dispatchEvent(new Event("input"));
    } else if (event.key === "Escape" && this.route?.host) {
      location.hash = minerRoute(this.route.minerId);
    }
  }

  // --- what comes in ---

  take(message) {
    if (message.broker) this.broker = { isLost: message.broker === "lost", since: message.time };
    else if (message.error) this.problem = `${word("error")}: ${message.error}`;
    else if (message.snapshot && message.snapshot === this.mirror?.minerId) this.mirror.takeSnapshot(message);
    else if (message.change && message.change === this.mirror?.minerId) this.mirror.takeChanges(message.records);
    askForFrame();
  }

  beat() {
    // The machine slept where its clock moved on and the browser's did not: then ages are too short, until we hear again.
    const apart = Date.now() - performance.now();
    if (apart - (this.apart ?? apart) > SLEPT && this.live.state === "live") this.live.lose();
    this.apart = apart;
    askForFrame();
  }

  draw() {
    const now = serverTime();
    this.drawConnection(now);
    this.shell.setNotice(this.problem ?? this.absence());
    if (this.view && (now || this.view instanceof Login)) this.view.draw(now);
  }

  // That nothing is known of what the address names, once that is known.
  absence() {
    if (!this.route?.minerId || !this.mirror.hasSnapshot) return null;
    const { minerId, host } = this.route;
    const isAbsent = this.mirror.records.size === 0 || (host !== null && !this.mirror.records.has(host));
    return isAbsent ? word("noSuchMiner", { name: host ?? minerId }) : null;
  }

  drawConnection(now) {
    const { state, heard } = this.live;
    const { isLost, since } = this.broker;
    if (state === "cut") this.shell.setConnection("cut", now, word("cutBanner", { time: heard ? formatClock(heard) : "–" }));
    else if (isLost) this.shell.setConnection("brokerLost", now, word("brokerBanner", { time: formatClock(since) }));
    else this.shell.setConnection(state, now, null);
  }
}

function setTheme(theme) {
  if (THEMES.includes(theme)) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

new Page().start();
