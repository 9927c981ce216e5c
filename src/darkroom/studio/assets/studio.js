"use strict";
// What the page's buttons call. Gradio hands over the values of its components and takes them back.

{
  const { darkroom } = window;
  const PARTS = { layout: "darkroom-boxes", map: "darkroom-map", enlarge: "darkroom-small", inpaint: "darkroom-hole", vary: "darkroom-image" };
  const GIVEN = { image: "picture", mask: "mask", map: "map", low_res: "small picture", guide: "guide picture" };
  const OWN = "the model's";
  const SCALE = "guidance_of_"; // before the field that a scale is for
  const filled = (value) => value !== null && value !== undefined && value !== "" && value !== OWN && !Number.isNaN(value);
  const choices = {};
  let wanted = null;

  customElements.define(
    "darkroom-head",
    class extends HTMLElement {
      connectedCallback() {
        const { models, leave } = darkroom.told(this);
        darkroom.models = models;
        if (this.childElementCount) return;
        const count = Object.keys(darkroom.models).length;
        const theme = darkroom.button("Dark or light", () => {
          const dark = document.body.classList.toggle("dark");
          document.documentElement.style.colorScheme = dark ? "dark" : "light";
        });
        this.append(darkroom.make("h1", { textContent: "Darkroom" }), darkroom.make("span", { className: "dr-hint", textContent: `${count} ${count === 1 ? "model" : "models"}` }), theme);
        if (leave) this.append(darkroom.button("Sign out", () => this.leave(leave)));
      }

      async leave(where) {
        try {
          await fetch(where, { method: "POST", credentials: "same-origin" });
          location.assign("/sign-in");
        } catch {
          darkroom.result.say("The server does not answer; you are still signed in.", true);
        }
      }
    },
  );

  /** The model that a tab has, by what was chosen or by what its element was told. */
  darkroom.chosen = (tab) => choices[tab] || darkroom.told(part(tab)).models[0];

  /** A model was chosen on a tab; answers what its list of classes, where there is one, shall be. */
  darkroom.choose = (tab, name, label) => {
    const anew = choices[tab] !== name; // not by settings that were put back, with their class
    choices[tab] = name;
    part(tab)?.show?.();
    if (label === undefined) return [];
    const { classes } = darkroom.models[name];
    const known = classes.includes(label) || /^\d+$/.test(label ?? "");
    const first = tab === "class" ? (classes[0] ?? null) : null;
    return [{ choices: classes.map((each) => [each, each]), ...(anew && !known ? { value: first } : {}), __type__: "update" }];
  };

  function part(tab) {
    return PARTS[tab] ? document.querySelector(`${PARTS[tab]}[data-tab="${tab}"]`) : null;
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
      const asked = { ...guide, ...(await part(tab)?.fields()), ...request(given) };
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

  /** What a note asks for, in the names of a request. */
  const askedBy = ({ to_prompt, index, ...note }) => ({ ...note, to: to_prompt, first: index, count: 1 });

  /** Are its numbers among those that a browser counts exactly? */
  darkroom.exact = (asked) => ["seed", "to_seed", "first", "index"].every((name) => !filled(asked[name]) || Number.isSafeInteger(asked[name]));

  /** The tab on which a model is asked for something with these pictures. */
  function tabOf({ fields }, given) {
    if (given.mask) return "inpaint";
    if (given.image) return "vary";
    const steered = fields.find((each) => each !== "caption") || fields[0];
    return { objects: "layout", map: "map", low_res: "enlarge", caption: "text", label: "class" }[steered] || "free";
  }

  /** Put what a note tells back into the page, with the pictures that are known here; answers a sentence about it. */
  darkroom.restore = (note) => {
    const model = Object.hasOwn(darkroom.models, note.model) ? darkroom.models[note.model] : null;
    if (!model) return `The model ${note.model} is not offered here.`;
    if (note.spec_hash && model.spec_hash && note.spec_hash !== model.spec_hash) return `Another model called ${note.model} made it.`;
    if (!darkroom.exact(note)) return "Its seed has more digits than a browser counts; darkroom sample --like draws it again.";
    const given = note.pictures || {};
    const pictures = darkroom.recalled(given);
    const missing = Object.keys(given).filter((name) => !pictures[name]);
    wanted = { tab: tabOf(model, given), asked: { ...askedBy(note), ...pictures } };
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
    for (const element of [part(tab), document.querySelector("darkroom-guide")]) {
      await element?.show?.();
      await element?.restore?.(asked);
    }
  }
}
