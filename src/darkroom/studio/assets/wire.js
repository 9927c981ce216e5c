"use strict";
// What goes to the server and comes back. Every request is one of the HTTP API, with the cookie of whoever signed in.

window.darkroom = {
  models: {},

  /** The answer of a route as JSON; an Error with the server's own sentence. */
  async ask(path, options = {}) {
    const answer = await fetch(path, { credentials: "same-origin", ...options });
    if (answer.ok) return answer.status === 204 ? null : answer.json();
    let said = `the server answered ${answer.status}`;
    try {
      said = (await answer.json()).error.message;
    } catch {
      // no JSON: the status says it
    }
    throw new Error(said);
  },

  /** A new job; pictures by field as data URLs are among the values. */
  begin(values) {
    return this.ask("/v1/jobs", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(values),
    });
  },

  /** Events of a job until it has ended; answers the job. A stream that breaks is taken up again. */
  async follow(id, tell, signal) {
    let last = "";
    for (;;) {
      const headers = last ? { "Last-Event-ID": last } : {};
      const answer = await fetch(`/v1/jobs/${id}/events`, { credentials: "same-origin", headers, signal });
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const told = text.split("\n\n");
        text = told.pop();
        for (const each of told) {
          const lines = Object.fromEntries(each.split("\n").map((line) => line.split(/: (.*)/s)));
          if (!lines.event) continue;
          last = lines.id;
          if (lines.event === "done") return JSON.parse(lines.data);
          tell(lines.event, JSON.parse(lines.data));
        }
      }
      await new Promise((after) => setTimeout(after, 1000));
    }
  },

  /** What a custom element was told by the page. */
  told(element) {
    return JSON.parse(element.dataset.told || "{}");
  },

  /** An element with its properties and children. */
  make(name, properties = {}, ...children) {
    const { dataset = {}, style = {}, aria = {}, ...others } = properties;
    const made = Object.assign(document.createElement(name), others);
    Object.assign(made.dataset, dataset);
    Object.assign(made.style, style);
    for (const [key, value] of Object.entries(aria)) made.setAttribute(`aria-${key}`, value);
    made.append(...children);
    return made;
  },

  button(words, click, properties = {}) {
    return window.darkroom.make("button", { type: "button", className: "dr-button", textContent: words, onclick: click, ...properties });
  },

  /** A colour for a number, far from those of its neighbours; 0 is dark ground. */
  colour(number) {
    return number === 0 ? "#3b3a38" : `hsl(${(number * 222.5) % 360} 70% 55%)`;
  },
};
