"use strict";
// What the page's buttons call. Gradio hands over the values of its components and takes them back.

{
  const { darkroom } = window;
  const PARTS = { layout: "darkroom-boxes", map: "darkroom-map", enlarge: "darkroom-small", inpaint: "darkroom-hole", vary: "darkroom-image" };
  const OWN = "the model's";
  const filled = (value) => value !== null && value !== undefined && value !== "" && value !== OWN && !Number.isNaN(value);
  const choices = {};
  let wanted = null;

  darkroom.given = new Map(); // what this page asked for, by job, pictures included

  customElements.define(
    "darkroom-head",
    class extends HTMLElement {
      connectedCallback() {
        darkroom.models = darkroom.told(this);
        if (this.childElementCount) return;
        const count = Object.keys(darkroom.models).length;
        const theme = darkroom.button("Dark or light", () => {
          const dark = document.body.classList.toggle("dark");
          document.documentElement.style.colorScheme = dark ? "dark" : "light";
        });
        this.append(darkroom.make("h1", { textContent: "Darkroom" }), darkroom.make("span", { className: "dr-hint", textContent: `${count} ${count === 1 ? "model" : "models"}` }), theme);
      }
    },
  );

  /** The model that a tab has, by what was chosen or by what its element was told. */
  darkroom.chosen = (tab) => choices[tab] || darkroom.told(part(tab)).models[0];

  darkroom.choose = (tab, name) => {
    choices[tab] = name;
    part(tab)?.show?.();
  };

  function part(tab) {
    return PARTS[tab] ? document.querySelector(`${PARTS[tab]}[data-tab="${tab}"]`) : null;
  }

  /** Go to a page or a tab by its title. */
  darkroom.page = (title) => {
    const found = [...document.querySelectorAll('button[role="tab"]')].filter((each) => each.textContent.trim() === title);
    found.find((each) => each.offsetParent)?.click() || found[0]?.click();
  };

  darkroom.draw = async (tab, names, values) => {
    const given = Object.fromEntries(names.map((name, place) => [name, values[place]]).filter(([, value]) => filled(value)));
    try {
      const asked = { ...(await part(tab)?.fields()), ...request(given) };
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
    if (inverted) asked.inverted = true;
    if (filled(height) !== filled(width)) throw new Error("a size has a height and a width; give both or none");
    if (filled(height)) asked.size = [height, width];
    if (filled(guidance_low) || filled(guidance_high)) asked.guidance_interval = [guidance_low ?? 0, guidance_high ?? null];
    if (filled(asked.to_label) && /^\d+$/.test(asked.to_label)) asked.to_label = Number(asked.to_label);
    return asked;
  }

  /** What a note asks for, in the names of a request. */
  darkroom.askedBy = ({ to_prompt, index, spec_hash, pictures, decoder, precision, ...note }) => ({
    ...note,
    to: to_prompt,
    first: index,
    count: 1,
    given: pictures,
    hash: spec_hash,
  });

  /** Put what was asked for back into the page; answers a sentence about it. */
  darkroom.restore = (asked) => {
    const model = darkroom.models[asked.model];
    if (!model) return `The model ${asked.model} is not offered here.`;
    if (asked.hash && model.hash && asked.hash !== model.hash) return `Another model called ${asked.model} made it.`;
    const given = { ...asked.given };
    const tab = given.mask || asked.mask ? "inpaint" : given.image || asked.image ? "vary" : { objects: "layout", map: "map", low_res: "enlarge", caption: "text", label: "class" }[model.fields.find((each) => each !== "caption") || model.fields[0]] || "free";
    wanted = { tab, asked };
    document.querySelector("#dr-restore").click();
    const missing = Object.keys(given).filter((name) => !asked[name]);
    return missing.length ? `Settings are back; give the ${missing.join(" and the ")} again.` : "Settings are back.";
  };

  /** New values for all components, in their order. */
  darkroom.restored = (names, values) => {
    if (!wanted) throw new Error("nothing to restore");
    const { tab, asked } = wanted;
    wanted = null;
    const [height, width] = asked.size || [];
    const [guidance_low, guidance_high] = asked.guidance_interval || [];
    const plain = { ...asked, height, width, guidance_low, guidance_high };
    if (typeof plain.guidance === "object") plain.guidance = null;
    choices[tab] = asked.model;
    setTimeout(() => {
      const element = part(tab);
      element?.show?.();
      element?.restore?.(asked);
    });
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
      return value ?? null;
    });
    return [...found, turned("draw"), turned(tab)];
  };
}
