"use strict";
// A training while it runs: asked for every two seconds, as long as the page is seen.

{
  const { make } = window.darkroom;
  const QUIET = 120; // seconds without a word that are told
  const clock = (seconds) => {
    const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
    return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
  };
  /** Nothing was written for a while: it has stopped, perhaps. */
  const silence = (seconds) => (seconds >= QUIET ? `, nothing new for ${Math.floor(seconds / 60)} min` : "");
  function number(value) {
    if (value === null) return "is no number";
    return value === 0 || Math.abs(value) >= 0.001 ? Number(value.toPrecision(4)) : value.toExponential(1);
  }

  customElements.define(
    "darkroom-follow",
    class extends HTMLElement {
      connectedCallback() {
        this.parts ||= new Map();
        if (!this.childElementCount) {
          this.head = make("p", { className: "dr-said", role: "status", textContent: "Looking ..." });
          this.stages = make("div");
          this.append(this.head, this.stages);
        }
        this.timer = setInterval(() => this.offsetParent && !document.hidden && this.look(), 2000);
        this.look();
      }

      disconnectedCallback() {
        clearInterval(this.timer);
      }

      async look() {
        try {
          const run = await window.darkroom.ask("/v1/training");
          const state = run.finished ? "finished" : run.stages.length ? `training${silence(run.silent)}` : "not begun yet";
          const said = `${run.name}: ${state}. ${run.summary}`;
          if (this.head.textContent !== said) this.head.textContent = said; // it is read out when it changes
          for (const stage of run.stages) this.put(stage);
        } catch (error) {
          this.head.textContent = error.message;
        }
      }

      put(stage) {
        if (!this.parts.has(stage.key)) {
          const part = make("section", { className: "dr-stage-of-run", dataset: { stage: stage.key } });
          this.parts.set(stage.key, part);
          this.stages.append(part);
        }
        const part = this.parts.get(stage.key);
        const told = JSON.stringify(stage);
        if (part.told === told) return; // so that nothing flickers, and text can be marked
        part.told = told;
        const left = stage.left === null || stage.step >= stage.steps ? "" : `, ${clock(stage.left)} left`;
        const values = Object.entries(stage.latest).map(([key, value]) => make("span", { textContent: `${key.replaceAll("_", " ")} ${number(value)}` }));
        const plot = make("div", { className: "dr-plot", innerHTML: stage.chart }); // drawn by the server, all text escaped
        const sheets = stage.pictures.map(({ name, title, version }) =>
          make("figure", {}, make("figcaption", { textContent: title }), make("img", { src: `/v1/training/${stage.key}/${name}?v=${version}`, alt: title, className: "dr-sheet" })),
        );
        part.replaceChildren(
          make("h3", { textContent: `${stage.name}: step ${stage.step}${stage.steps ? ` of ${stage.steps}` : ""}${left}` }),
          make("progress", { max: stage.steps || 1, value: stage.step, aria: { label: `Steps of the ${stage.name}` } }),
          make("p", { className: "dr-values" }, ...values),
          make("div", { className: "dr-seen" }, plot, ...sheets),
        );
      }
    },
  );
}
