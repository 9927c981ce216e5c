"use strict";
// What the page's buttons call. Gradio hands over the values of its components and takes them back.

{
  const { darkroom } = window;
  const GIVEN = { image: "picture", mask: "mask", map: "map", low_res: "small picture", guide: "guide picture" };
  const OWN = "the model's";
  const SCALE = "guidance_of_"; // before the field that a scale is for
  const filled = (value) => value !== null && value !== undefined && value !== "" && value !== OWN && !Number.isNaN(value);
  const choices = {};
  const whole = new Set(); // prompts of several lines that came as one
  const THEME = ["theme", "localStorage"];
  const system = matchMedia("(prefers-color-scheme: dark)");
  let wanted = null;

  /** Dark or light: as the address says, in Gradio's word for it, else as was chosen here, else as the system is. */
  function themed() {
    const chosen = new URLSearchParams(location.search).has("__theme") ? null : darkroom.kept(...THEME);
    if (chosen) document.body.classList.toggle("dark", chosen === "dark");
    document.documentElement.style.colorScheme = document.body.classList.contains("dark") ? "dark" : "light";
  }

  /** The other one, and so at the next visit; what the system has is followed again. */
  function turnLight() {
    const dark = document.body.classList.toggle("dark");
    const [name, where] = THEME;
    darkroom.keep(name, dark === system.matches ? null : dark ? "dark" : "light", where);
    themed();
  }

  customElements.define(
    "darkroom-head",
    class extends HTMLElement {
      connectedCallback() {
        const { models, tabs, leave } = darkroom.told(this);
        Object.assign(darkroom, { models, tabs });
        if (this.childElementCount) return;
        themed();
        system.addEventListener("change", themed); // after Gradio, which was there before
        const count = Object.keys(darkroom.models).length;
        const theme = darkroom.button("Dark or light", turnLight);
        this.append(darkroom.make("h1", { textContent: "Darkroom" }), darkroom.make("span", { className: "dr-hint", textContent: `${count} ${count === 1 ? "model" : "models"}` }), theme);
        if (leave) this.append(darkroom.button("Sign out", () => this.leave(leave)));
      }

      async leave(where) {
        try {
          await fetch(where, { method: "POST", credentials: "same-origin" });
          darkroom.keep("job", null);
          location.assign("/sign-in");
        } catch {
          darkroom.result?.say("The server does not answer; you are still signed in.", true);
        }
      }
    },
  );

  /** The model that a tab has: what was chosen, or its first. */
  darkroom.chosen = (tab) => choices[tab] || darkroom.tabs[tab][0];

  /** Does an element ask for something beside a tab's own task that the chosen model does not take? It is hidden then. */
  darkroom.absent = (element) => {
    const { tab, field } = darkroom.told(element);
    element.hidden = Boolean(field) && !darkroom.models[darkroom.chosen(tab)].fields.includes(field);
    return element.hidden;
  };

  /** A model was chosen on a tab; answers what its list of classes, where there is one, shall be. */
  darkroom.choose = (tab, name, label) => {
    const anew = choices[tab] !== name; // not by settings that were put back, with their class
    choices[tab] = name;
    for (const each of parts(tab)) each.show();
    if (label === undefined) return [];
    const classes = darkroom.names(darkroom.models[name], "label");
    const known = classes.includes(label) || /^\d+$/.test(label ?? "");
    const first = tab === "class" ? (classes[0] ?? null) : null;
    return [{ choices: classes.map((each) => [each, each]), ...(anew && !known ? { value: first } : {}), __type__: "update" }];
  };

  /** The elements on a tab that ask for something. */
  function parts(tab) {
    return [...document.querySelectorAll(`[data-part="${tab}"]`)];
  }

  /** What they answer; what a model may go without is left out while there is nothing in it. */
  async function answered(tab, { fields, guided }) {
    const found = {};
    for (const each of parts(tab)) {
      const { field } = darkroom.told(each);
      if (field && (!fields.includes(field) || (guided.includes(field) && each.empty()))) continue;
      Object.assign(found, await each.fields());
    }
    return found;
  }

  /** Go to a page or a tab by its title. */
  darkroom.page = (title) => {
    const found = [...document.querySelectorAll('button[role="tab"]')].filter((each) => each.textContent.trim() === title);
    (found.find((each) => each.offsetParent) || found[0])?.click();
  };

  darkroom.draw = async (tab, names, values) => {
    const given = Object.fromEntries(names.map((name, place) => [name, values[place]]).filter(([, value]) => filled(value)));
    try {
      const guide = await document.querySelector("darkroom-guide")?.fields();
      const asked = { ...guide, ...(await answered(tab, darkroom.models[given.model])), ...request(given) };
      await darkroom.result.draw(asked);
    } catch (error) {
      darkroom.result.say(error.message, true);
    }
  };

  /** The values of the page's components as a request has them. */
  function request({ height, width, guidance_low, guidance_high, inverted, ...others }) {
    const { fields } = darkroom.models[others.model];
    const asked = { ...others };
    if (!fields.includes("caption")) delete asked.prompt;
    else if (filled(asked.prompt)) asked.prompt = prompts(asked.prompt);
    if (!fields.includes("label")) delete asked.label;
    else if (filled(asked.label) && /^\d+$/.test(asked.label) && !darkroom.models[others.model].classes.includes(asked.label)) asked.label = Number(asked.label);
    const scales = Object.keys(asked).filter((name) => name.startsWith(SCALE));
    if (scales.length && filled(asked.guidance)) throw new Error("give one guidance for all, or one for each condition");
    if (scales.length) asked.guidance = Object.fromEntries(scales.map((name) => [name.slice(SCALE.length), asked[name]]));
    for (const name of scales) delete asked[name];
    if (inverted) asked.inverted = true;
    if (filled(height) !== filled(width)) throw new Error("a size has a height and a width; give both or none");
    if (filled(height)) asked.size = [height, width];
    if (filled(guidance_low) || filled(guidance_high)) asked.guidance_interval = [guidance_low ?? 0, guidance_high ?? null];
    if (filled(asked.to_label) && /^\d+$/.test(asked.to_label)) asked.to_label = Number(asked.to_label);
    return asked;
  }

  /** One prompt, or several: one a line. */
  function prompts(text) {
    if (!text.includes("\n") || whole.has(text)) return text;
    const lines = text.split("\n").map((line) => line.trim());
    const found = lines.filter(Boolean);
    return found.length > 1 ? found : (found[0] ?? "");
  }

  /** Is it a note as Darkroom writes them? A PNG may hold anything under that name. */
  function sound(note) {
    const given = (name) => note[name] !== undefined && note[name] !== null;
    const all = (names, kinds) => names.every((name) => !given(name) || kinds.includes(typeof note[name]));
    const list = (value, length) => Array.isArray(value) && (!length || value.length === length);
    const scales = typeof note.guidance !== "object" || Object.values(note.guidance ?? {}).every(Number.isFinite);
    return (
      all(["model", "prompt", "negative", "to_prompt", "solver", "times"], ["string"]) &&
      all(["seed", "to_seed", "index", "steps", "eta", "at", "strength", "guide_weight", "match", "window", "guidance_rescale"], ["number"]) &&
      all(["label", "to_label"], ["string", "number"]) &&
      all(["guidance"], ["number", "object"]) &&
      all(["pictures"], ["object"]) &&
      ["size", "guidance_interval"].every((name) => !given(name) || list(note[name], 2)) &&
      (!given("layout") || (list(note.layout) && note.layout.every((each) => list(each?.box, 4)))) &&
      scales
    );
  }

  /** What a note asks for, in the names of a request. */
  const askedBy = ({ to_prompt, index, ...note }) => ({ ...note, to: to_prompt, first: index, count: 1 });

  /** Are its numbers among those that a browser counts exactly? */
  darkroom.exact = (asked) => ["seed", "to_seed", "first", "index"].every((name) => !filled(asked[name]) || Number.isSafeInteger(asked[name]));

  /** The tab on which a model is asked for something with these pictures. */
  function tabOf({ fields }, given) {
    if (given.mask) return "inpaint";
    if (given.image) return "vary";
    const steered = ["objects", "map", "low_res", "label", "caption"].find((each) => fields.includes(each));
    return { objects: "layout", map: "map", low_res: "enlarge", caption: "text", label: "class" }[steered] || "free";
  }

  /** Put what a note tells back into the page, with the pictures that are known here; answers a sentence about it. */
  darkroom.restore = (note) => {
    if (!sound(note)) return "This picture does not say how it was made.";
    const model = Object.hasOwn(darkroom.models, note.model) ? darkroom.models[note.model] : null;
    if (!model) return `The model ${note.model} is not offered here.`;
    if (note.spec_hash && model.spec_hash && note.spec_hash !== model.spec_hash) return `Another model called ${note.model} made it.`;
    if (!darkroom.exact(note)) return "Its seed has more digits than a browser counts; darkroom sample --like draws it again.";
    const given = note.pictures || {};
    const pictures = darkroom.recalled(given);
    const missing = Object.keys(given).filter((name) => !pictures[name]);
    const tab = tabOf(model, given);
    if (!darkroom.tabs[tab]?.includes(note.model)) return `No tab asks ${note.model} for that; the HTTP API does.`;
    wanted = { tab, asked: { ...askedBy(note), ...pictures } };
    document.querySelector("#dr-restore").click();
    const again = missing.map((name) => GIVEN[name] || name).join(" and the ");
    const said = missing.length ? `Settings are back. Give the ${again} again: a PNG does not hold what it was made from.` : "Settings are back.";
    darkroom.result.say(said);
    return said;
  };

  /** New values for all components, in their order. */
  darkroom.restored = (names, values) => {
    if (!wanted) throw new Error("nothing to restore");
    const { tab, asked } = wanted;
    wanted = null;
    const [height, width] = asked.size || [];
    const [guidance_low, guidance_high] = asked.guidance_interval || [];
    const plain = { ...asked, height, width, guidance_low, guidance_high };
    if (typeof plain.guidance === "object") {
      for (const [field, scale] of Object.entries(plain.guidance || {})) plain[SCALE + field] = scale;
      plain.guidance = null;
    }
    choices[tab] = asked.model;
    if (asked.prompt?.includes("\n")) whole.add(asked.prompt);
    setTimeout(() => elementsRestored(tab, asked).catch((error) => darkroom.result.say(error.message, true)));
    const turned = (selected) => ({ selected, __type__: "update" });
    const found = names.map((name, place) => {
      const [of, field] = name.includes(".") ? name.split(".") : [tab, name];
      if (of !== tab) return values[place];
      const value = plain[field];
      if (["solver", "times"].includes(field)) return value ?? OWN;
      if (field === "inverted") return Boolean(value);
      if (field === "strength") return value ?? 0.6;
      if (field === "label" || field === "to_label") return value === undefined || value === null ? null : String(value);
      if (["prompt", "negative", "to"].includes(field)) return value ?? "";
      return value ?? ""; // of null a number that is shown later becomes 0
    });
    return [...found, turned("draw"), turned(tab)];
  };

  async function elementsRestored(tab, asked) {
    for (const element of [...parts(tab), document.querySelector("darkroom-guide")]) {
      await element.show();
      if (!element.hidden) await element.restore(asked);
    }
  }
}
