// What the scenarios ask inside of the page. It shares nothing with the page's own script but the document.
"use strict";

window.inPage = {
  state: () => document.documentElement?.dataset.state,
  text: (id) => document.getElementById(id).textContent,
  shows: (id) => document.getElementById(id).checkVisibility({ visibilityProperty: true }),
  attribute: (id, name) => document.getElementById(id).getAttribute(name),
  sleep: (ms) => new Promise((done) => setTimeout(done, ms)),

  /** When what moves now has arrived. */
  settled: async () => { await Promise.allSettled(document.getAnimations().map((animation) => animation.finished)); },

  /** What the program says now, without the page. */
  status: async () => (await fetch(`status.json${location.search}`)).json(),

  /** Where to click. */
  middle(id) {
    const element = document.getElementById(id);
    element.scrollIntoView({ block: "center", behavior: "instant" });
    const { x, y, width, height } = element.getBoundingClientRect();
    return [x + width / 2, y + height / 2];
  },

  /** Some pixels of an <img> or a <canvas>; nothing if it has none, or all are alike. */
  pixels(id) {
    const source = document.getElementById(id);
    if (!(source instanceof HTMLCanvasElement ? source.width : source.naturalWidth)) return "";
    const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
    const context = canvas.getContext("2d");
    context.drawImage(source, 0, 0, canvas.width, canvas.height);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const colours = new Set();
    for (let i = 0; i < data.length; i += 4) colours.add(data.slice(i, i + 4).join());
    return colours.size > 1 ? data.join() : "";
  },

  /** The bars, from the top: what is seen of them, and what a screen reader is told. */
  rows: () => [...document.querySelectorAll("#bars > li")]
    .map((row) => {
      const meter = row.querySelector("[role=meter]"), track = row.querySelector(".track").getBoundingClientRect();
      return {
        y: row.getBoundingClientRect().y,
        class: Number(row.dataset.class),
        label: row.querySelector(".label").textContent,
        score: row.querySelector(".score").textContent,
        now: Number(meter?.getAttribute("aria-valuenow") ?? -1),
        name: meter?.getAttribute("aria-label"),
        filled: row.querySelector(".fill").getBoundingClientRect().width / track.width,
      };
    }),

  /** Of the same frame each: the bars, and what the program said. So many, or as many as half a minute has. */
  async sameFrames(wanted) {
    const bars = document.getElementById("bars"), shown = new Map(), said = new Map();
    const observer = new MutationObserver(() => shown.set(Number(bars.dataset.frame), this.rows()));
    observer.observe(bars, { attributes: true, attributeFilter: ["data-frame"] });
    const both = () => [...said].filter(([frame]) => shown.has(frame)).map(([frame, top]) => ({ frame, top, rows: shown.get(frame) }));
    for (const end = performance.now() + 30000; both().length < wanted && performance.now() < end; await this.sleep(20)) {
      const { result } = await this.status();
      said.set(result.frame, result.top);
    }
    observer.disconnect();
    return both();
  },

  points: () => document.getElementById("latency-line").points.length,

  /** All that a pause has to stop. */
  readOut() {
    const texts = [...document.querySelectorAll("dd, #top, #latency-text")].map((element) => element.textContent);
    const points = document.getElementById("latency-line").getAttribute("points");
    return JSON.stringify([document.getElementById("bars").dataset.frame, texts, points, this.pixels("frozen")]);
  },

  /** How far the page is wider than its window, in pixels. */
  tooWide: () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  /** Elements that reach out of the window. */
  outside: () => [...document.querySelectorAll("body *")]
    .filter((element) => element.checkVisibility() && !element.closest(".unseen"))
    .filter((element) => {
      const { left, right } = element.getBoundingClientRect();
      return left < -1 || right > innerWidth + 1;
    })
    .map((element) => element.id || element.className || element.tagName),

  // WCAG 2.1: the contrast of two colours is a ratio of their relative luminances.
  parts: (colour) => colour.match(/[\d.]+/g).map(Number),
  luminance(colour) {
    const [r, g, b] = this.parts(colour).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  },
  contrast(one, other) {
    const [dark, light] = [this.luminance(one), this.luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  },
  ground(element) {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((this.parts(colour)[3] ?? 1) === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  },
  /** Texts, bars and buttons that are hard to see. */
  faint() {
    const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let seen = 0;
    while (texts.nextNode()) {
      const element = texts.currentNode.parentElement, text = texts.currentNode.textContent.trim();
      if (!text || !element.checkVisibility() || element.closest(".unseen")) continue;
      seen += 1;
      const contrast = this.contrast(getComputedStyle(element).color, this.ground(element));
      if (contrast < 4.5) found.push(`${text}: ${contrast.toFixed(2)}`);
    }
    const against = (name, colour, element) => {
      seen += 1;
      const contrast = this.contrast(colour, this.ground(element));
      if (contrast < 3) found.push(`${name}: ${contrast.toFixed(2)}`);
    };
    for (const fill of document.querySelectorAll(".fill")) against("a bar", getComputedStyle(fill).backgroundColor, fill.parentElement);
    for (const button of document.querySelectorAll("button")) against("a button's border", getComputedStyle(button).borderColor, button.parentElement);
    const state = document.getElementById("state");
    against("the state's dot", getComputedStyle(state, "::before").backgroundColor, state);
    return { seen, found };
  },

  /** What has the keyboard, and how one sees that. */
  focus() {
    const element = document.activeElement, style = getComputedStyle(element);
    const visible = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2
      && this.contrast(style.outlineColor, this.ground(element.parentElement ?? element)) >= 3;
    return { id: element.id, visible };
  },

  /** What the meters are to say, while the page is paused: their names, and percents. */
  meters() {
    return this.rows().map(({ label, score }) => [label, parseFloat(score)]);
  },

  /** As if the tab were in the background, or no longer. */
  hide(hidden) {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  },
};
