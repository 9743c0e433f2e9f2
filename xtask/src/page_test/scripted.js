// Stands in for the program's events: the scenario says them. The pictures stay the program's.
"use strict";

window.EventSource = class extends EventTarget {
  constructor(address) {
    super();
    this.address = address;
    window.scripted = this;
  }
  close() {}
  say(name, data) {
    this.dispatchEvent(new MessageEvent(name, { data: JSON.stringify(data) }));
  }
  hello(more = {}) {
    this.say("hello", {
      model: "scripted", kernel: "scalar", threads: 1, classes: 1000, input: [224, 224], source: "test:", format: "RGB3 640x480", version: "0.0.0", ...more,
    });
  }
  result(frame, top, more = {}) {
    this.say("result", {
      frame, state: "live", top, age_ms: 1, ms: { capture: 1, preprocess: 1, inference: 10, end_to_end: 13 },
      camera_per_s: 30, classified_per_s: 30, dropped: 1, temperature_c: null, clock_mhz: null, ...more,
    });
  }
};
