// What stands around every view: the miners, the views, the connection, the language and the theme.

import { formatClock } from "../format.js";
import { minerRoute, VIEWS } from "../route.js";
import { isChinese, word } from "../words.js";
import { icon, make, setAttribute, setClass, setText } from "./dom.js";

const VIEW_WORD = { fields: "allFields" };

/** The frame, put into the document. `acts`: onLanguage, onTheme, onSignOut, onSkip; `user` is null where nobody signed in. */
export class Shell {
  constructor(user, acts) {
    this.choice = make("select", { "aria-label": word("chooseMiner"), onchange: () => (location.hash = minerRoute(this.choice.value)) });
    this.tabs = VIEWS.map((view) => ({ view, link: make("a", {}, word(VIEW_WORD[view] ?? view)) }));
    this.nav = make("nav", { "aria-label": word("views"), hidden: true }, this.tabs.map(({ link }) => link));
    this.stateWord = make("span", { role: "status" });
    this.time = make("span.live-time");
    this.state = make("span.live-state", {}, this.stateWord, this.time);
    this.bannerText = make("span");
    this.banner = make("div.banner", { role: "alert", hidden: true }, icon("warning"), this.bannerText);
    this.notice = make("p.notice", { role: "status", hidden: true });
    this.main = make("main", { id: "content" });
    const skip = make("a.skip", { href: "#content", onclick: (event) => (event.preventDefault(), acts.onSkip()) }, word("skip"));
    const brand = make("a.brand", { href: "#/" }, make("img", { src: "page/icon.svg", alt: "", width: 22, height: 22 }), make("span", {}, word("title")));
    const miner = make("label.miner-choice", {}, make("span.unseen", {}, word("miner")), this.choice);
    const top = make("header.top", {}, brand, miner, this.nav, make("div.top-end", {}, this.state, buttons(user, acts)));
    document.body.replaceChildren(skip, top, this.banner, this.notice, this.main, make("footer", {}, make("span", {}, word("keys"))));
  }

  /** Offer miners by their ids; `current` is null where none is chosen. */
  setMiners(ids, current) {
    const offered = current === null || ids.includes(current) ? ids : [...ids, current];
    const options = current === null ? ["", ...offered] : offered;
    if (this.choice.shown !== options.join()) {
      this.choice.shown = options.join();
      this.choice.replaceChildren(...options.map((id) => make("option", { value: id }, id || word("miners"))));
    }
    this.choice.value = current ?? "";
    this.choice.parentElement.hidden = offered.length === 0;
  }

  /** Mark where we are; `route` is null where nothing may be seen. */
  setRoute(route) {
    this.state.hidden = route === null;
    this.nav.hidden = !route?.minerId;
    if (this.nav.hidden) return;
    for (const { view, link } of this.tabs) {
      link.href = minerRoute(route.minerId, view);
      setAttribute(link, "aria-current", view === route.view && route.host === null ? "page" : null);
    }
  }

  /** Say how the connection is: `name` of its state, and the `trouble` in a line where there is any: then nothing is of now. */
  setConnection(name, now, trouble) {
    setText(this.stateWord, word(name));
    setText(this.time, name === "live" ? formatClock(now) : "");
    setClass(this.state, `live-state ${name}`);
    this.banner.hidden = trouble === null;
    setText(this.bannerText, trouble ?? "");
    document.body.classList.toggle("dated", trouble !== null);
  }

  /** Say something above the view; null says nothing. */
  setNotice(text) {
    setText(this.notice, text ?? "");
    this.notice.hidden = text === null;
  }
}

function buttons(user, { onLanguage, onTheme, onSignOut }) {
  return [
    make("button", { type: "button", lang: isChinese() ? "en" : "zh-CN", "aria-label": word("languageLabel"), onclick: onLanguage }, word("language")),
    make("button.theme", { type: "button", "aria-label": word("theme"), title: word("theme"), onclick: onTheme }, icon("theme")),
    user === null ? null : make("button", { type: "button", title: user, onclick: onSignOut }, word("signOut")),
  ];
}
