// The page: it asks what fields there are, follows the miner that its address names, and draws once a frame.

import { ApiError, get, post } from "./api.js";
import { serverTime } from "./clock.js";
import { icon, make, setAttribute, setClass, setText } from "./dom.js";
import { setFields } from "./fields.js";
import { formatClock } from "./format.js";
import { askForFrame, drawWith } from "./frames.js";
import { Live } from "./live.js";
import { Mirror } from "./mirror.js";
import { remember, remembered } from "./remembered.js";
import { minerRoute, parseRoute, VIEWS } from "./route.js";
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
const SLEPT = 5_000;
const FIRST_RETRY = 2_000;
const VIEW_OF = { overview: Overview, queue: Queue, history: History, events: Events, quality: Quality, fields: Fields };
const VIEW_WORD = { fields: "allFields" };
const THEMES = ["light", "dark"];

class Page {
  constructor() {
    this.mirror = null;
    this.view = null;
    this.miners = { list: [] };
    this.broker = { isLost: false, since: 0 };
    this.user = null;
    this.scrolled = new Map();
    this.live = new Live({ take: (message) => this.take(message), mayOpen: () => this.isSignedIn(), onState: askForFrame });
    setLanguage(remembered("language") ?? navigator.language);
    setTheme(remembered("theme"));
    drawWith(() => this.draw());
    for (const event of ["scroll", "resize"]) addEventListener(event, askForFrame, { passive: true });
    addEventListener("hashchange", (event) => this.follow(event.oldURL));
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
      setText(this.notice, `${word("error")}: ${error.message}`);
      this.notice.hidden = false;
      setTimeout(() => this.start(), FIRST_RETRY);
      return;
    }
    this.notice.hidden = true;
    this.live.open();
    this.follow();
    this.build();
    clearInterval(this.refreshing);
    this.refreshing = setInterval(() => document.hidden || this.loadMiners().catch(() => {}), MINERS_REFRESH);
  }

  /** Whether we may see anything; where we may not, the form that asks for credentials is shown. */
  async isSignedIn() {
    const { login, user } = await get("api/session");
    this.user = user;
    if (!login || user !== null) return true;
    this.live.close();
    this.mirror = this.route = null;
    this.show(new Login({ onSignedIn: () => this.start() }));
    this.build();
    return false;
  }

  async loadMiners() {
    const { miners } = await get("api/miners");
    this.miners.list = miners;
    this.writeMiners();
    askForFrame();
  }

  // --- the frame around the views ---

  build() {
    document.title = word("title");
    this.choice = make("select", { "aria-label": word("chooseMiner"), onchange: () => (location.hash = minerRoute(this.choice.value)) });
    this.tabs = VIEWS.map((view) => ({ view, link: make("a", {}, word(VIEW_WORD[view] ?? view)) }));
    this.nav = make("nav", { "aria-label": word("views") }, this.tabs.map(({ link }) => link));
    this.liveWord = make("span", { role: "status" });
    this.liveTime = make("span.live-time");
    this.light = make("span.live-state", {}, this.liveWord, this.liveTime);
    const buttons = [
      make("button", { type: "button", lang: isChinese() ? "en" : "zh-CN", "aria-label": word("languageLabel"), onclick: () => this.switchLanguage() }, word("language")),
      make("button.theme", { type: "button", "aria-label": word("theme"), title: word("theme"), onclick: () => this.switchTheme() }, icon("theme")),
    ];
    if (this.user !== null) buttons.push(make("button", { type: "button", title: this.user, onclick: () => this.signOut() }, word("signOut")));
    this.banner = make("div.banner", { role: "alert", hidden: true }, icon("warning"), (this.bannerText = make("span")));
    this.notice = make("p.notice", { role: "status", hidden: true });
    this.main = make("main", { id: "content" });
    const top = make("header.top", {},
      make("a.brand", { href: "#/" }, make("img", { src: "page/icon.svg", alt: "", width: 22, height: 22 }), make("span", {}, word("title"))),
      make("label.miner-choice", {}, make("span.unseen", {}, word("miner")), this.choice), this.nav, make("div.top-end", {}, this.light, buttons));
    this.writeTabs(this.route ?? { minerId: null });
    this.light.hidden = this.view instanceof Login;
    const skip = make("a.skip", { href: "#content", onclick: (event) => (event.preventDefault(), this.focusHeading()) }, word("skip"));
    document.body.replaceChildren(skip, top, this.banner, this.notice, this.main, make("footer", {}, make("span", {}, word("keys"))));
    this.writeMiners();
    if (this.view) this.main.append(this.view.element);
    askForFrame();
  }

  writeMiners() {
    const ids = this.miners.list.map(({ minerId }) => minerId);
    const current = this.mirror?.minerId;
    if (current && !ids.includes(current)) ids.push(current);
    if (this.choice.dataset.ids !== ids.join()) {
      this.choice.dataset.ids = ids.join();
      this.choice.replaceChildren(...(current ? [] : [make("option", { value: "" }, word("miners"))]), ...ids.map((id) => make("option", { value: id }, id)));
    }
    this.choice.value = current ?? "";
    this.choice.parentElement.hidden = ids.length === 0;
  }

  writeTabs({ minerId, host, view }) {
    this.nav.hidden = minerId === null;
    for (const { view: name, link } of this.tabs) {
      link.href = minerId ? minerRoute(minerId, name) : "#/";
      setAttribute(link, "aria-current", name === view && host === null ? "page" : null);
    }
  }

  switchLanguage() {
    setLanguage(isChinese() ? "en" : "zh-CN");
    remember("language", language());
    this.rebuild();
  }

  switchTheme() {
    const isDark = getComputedStyle(document.documentElement).colorScheme === "dark"
      || (getComputedStyle(document.documentElement).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
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

  async signOut() {
    await post("logout").catch(() => {});
    this.isSignedIn();
  }

  // --- where we are ---

  follow(formerUrl) {
    if (formerUrl && this.view instanceof Login) return;
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
    document.title = [route.host, route.minerId, word("title")].filter(Boolean).join(" · ");
    this.writeTabs(route);
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
    this.main.replaceChildren(view.element);
    askForFrame();
  }

  focusHeading() {
    this.main.querySelector("h1")?.focus({ preventScroll: true });
  }

  press(event) {
    const isTyping = event.target.closest?.("input, select, textarea");
    if (event.key === "/" && !isTyping) {
      const filter = this.main.querySelector("[data-filter]");
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

  beat() {
    // The machine slept where its clock moved on and the browser's did not: then ages are too short, until we hear again.
    const apart = Date.now() - performance.now();
    if (this.apart !== undefined && apart - this.apart > SLEPT && this.live.state === "live") this.live.lose();
    this.apart = apart;
    askForFrame();
  }

  take(message) {
    if (message.broker) this.broker = { isLost: message.broker === "lost", since: message.time, reason: message.reason };
    else if (message.snapshot && message.snapshot === this.mirror?.minerId) this.mirror.takeSnapshot(message);
    else if (message.change && message.change === this.mirror?.minerId) this.mirror.takeChanges(message.records);
    askForFrame();
  }

  draw() {
    const now = serverTime();
    this.drawConnection(now);
    if (this.route?.minerId && this.mirror?.hasSnapshot) this.drawAbsence();
    if (this.view && (now || this.view instanceof Login)) this.view.draw(now);
  }

  drawAbsence() {
    const { minerId, host } = this.route;
    const isAbsent = this.mirror.records.size === 0 || (host !== null && !this.mirror.records.has(host));
    if (isAbsent) setText(this.notice, word("noSuchMiner", { name: host ?? minerId }));
    this.notice.hidden = !isAbsent;
  }

  drawConnection(now) {
    const { state, heard } = this.live;
    const isCut = state === "cut";
    const { isLost, since } = this.broker;
    const name = state === "live" && isLost ? "brokerLost" : state;
    setText(this.liveWord, word(name));
    setText(this.liveTime, name === "live" ? formatClock(now) : "");
    setClass(this.light, `live-state ${name}`);
    const isDated = isCut || isLost;
    this.banner.hidden = !isDated;
    document.body.classList.toggle("dated", isDated);
    if (isDated) setText(this.bannerText, isCut ? word("cutBanner", { time: heard ? formatClock(heard) : "–" }) : word("brokerBanner", { time: formatClock(since) }));
  }
}

function setTheme(theme) {
  if (THEMES.includes(theme)) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

const page = new Page();
page.start();
