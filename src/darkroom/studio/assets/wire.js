"use strict";
// What goes to the server and comes back. Every request is one of the HTTP API, with the cookie of whoever signed in.

const SIGNED_OUT = "You are signed out. Sign in again in another tab, at /sign-in, then repeat this here.";

class Lost extends Error {} // a connection

/** What one connection tells of a job, from the event of this id on: {id, event, data}. */
async function* eventsOf(job, last) {
  const kept = (answer) =>
    answer.catch(() => {
      throw new Lost();
    });
  const headers = last ? { "Last-Event-ID": last } : {};
  const answer = await kept(fetch(`/v1/jobs/${job}/events`, { credentials: "same-origin", headers }));
  if (answer.status >= 500) throw new Lost(); // of a proxy whose server is being started
  if (answer.status === 401) throw new Error(SIGNED_OUT);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await kept(reader.read());
    if (done) return;
    text += value;
    const told = text.split("\n\n");
    text = told.pop();
    for (const each of told) {
      const lines = Object.fromEntries(each.split("\n").map((line) => line.split(/: (.*)/s)));
      if (lines.event) yield lines;
    }
  }
}

window.darkroom = {
  models: {},
  tabs: {}, // names of the models on each, the first chosen
  known: new Map(), // pictures that were given to this page, by the hash that notes have of them
  mostKnown: 32,
  tries: 120, // to reach the server again, one a second

  /** The answer of a route as JSON; an Error with the server's own sentence. */
  async ask(path, options = {}) {
    const answer = await fetch(path, { credentials: "same-origin", ...options });
    if (answer.ok) return answer.status === 204 ? null : answer.json();
    if (answer.status === 401) throw new Error(SIGNED_OUT);
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

  /** Events of a job until it has ended; answers the job. What breaks is taken up again, by a server started anew too. */
  async follow(id, tell) {
    let last = "";
    for (let tried = 0; tried < this.tries; tried++) {
      try {
        for await (const each of eventsOf(id, last)) {
          [last, tried] = [each.id, 0];
          if (each.event === "done") return JSON.parse(each.data);
          tell(each.event, JSON.parse(each.data));
        }
      } catch (error) {
        if (!(error instanceof Lost)) throw error;
        tell("state", { state: "lost" });
      }
      await new Promise((after) => setTimeout(after, 1000));
    }
    throw new Error("the server does not answer any more");
  },

  /** Keep a picture that was given, for those who ask for the same again. */
  remember(hash, url) {
    this.known.delete(hash);
    this.known.set(hash, url);
    if (this.known.size > this.mostKnown) this.known.delete(this.known.keys().next().value);
  },

  /** Of the pictures that a note names, by field, those that this page still has. */
  recalled(marks) {
    const found = Object.entries(marks || {}).map(([field, hash]) => [field, this.known.get(hash)]);
    return Object.fromEntries(found.filter(([, url]) => url));
  },

  /** What this tab (with `localStorage`: this browser) still knows later; nothing where the browser keeps nothing. */
  keep(name, value, where = "sessionStorage") {
    try {
      if (value === null) window[where].removeItem(`darkroom-${name}`);
      else window[where].setItem(`darkroom-${name}`, value);
    } catch {
      // it is a convenience
    }
  },

  kept(name, where = "sessionStorage") {
    try {
      return window[where].getItem(`darkroom-${name}`);
    } catch {
      return null;
    }
  },

  /** What a model calls the classes of a field: by names, or by numbers where it has none. */
  names(model, field) {
    const known = { label: model.classes, objects: model.categories, map: model.map_classes }[field];
    return Array.from({ length: Math.max(known.length, model.counts[field] ?? 0) }, (_, number) => known[number] ?? String(number));
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

  /** A button that asks once more before it does what cannot be undone. */
  sureButton(words, again, act, properties = {}) {
    const made = this.button(
      words,
      () => {
        if (made.dataset.sure) return act();
        Object.assign(made, { textContent: again }).dataset.sure = "asked";
        setTimeout(() => {
          delete made.dataset.sure;
          made.textContent = words;
        }, 5000);
      },
      properties,
    );
    return made;
  },

  /** A colour for a number, far from those of its neighbours; 0 is dark ground. */
  colour(number) {
    return number === 0 ? "#3b3a38" : `hsl(${(number * 222.5) % 360} 70% 55%)`;
  },
};
