"use strict";
// What was drawn: every picture with its seed and settings, and ways on from there.

{
  const { make, button } = window.darkroom;
  const MOST_LOOKS = 10; // at pages of jobs without pictures
  const QUIET = ["model", "spec_hash", "seed", "index", "size", "layout", "pictures", "decoder", "guidance"];
  const plain = (value) => typeof value !== "object" || value === null;
  const scales = (guidance) => (plain(guidance) ? [guidance] : Object.entries(guidance).map((each) => each.join(" "))).join(", ");

  /** A note in a line: what it says of the picture, then its settings. */
  function words(note) {
    const steered = [note.prompt, note.label].filter((each) => each !== undefined && each !== null).join(", ");
    const layout = (note.layout || []).map((each) => each.category).join(", ");
    const given = Object.keys(note.pictures || {}).join(", ");
    const skipped = [...QUIET, "prompt", "label"];
    const rest = Object.entries(note)
      .filter(([key, value]) => !skipped.includes(key) && plain(value) && value !== null && !(key === "guidance_rescale" && value === 0))
      .map(([key, value]) => (key === "steps" ? `${value} steps` : key === "solver" ? value : `${key.replaceAll("_", " ")} ${value}`));
    return [[steered || layout || given || "freely"], [...rest, `guidance ${scales(note.guidance)}`]].map((each) => each.join(" · "));
  }

  customElements.define(
    "darkroom-gallery",
    class extends HTMLElement {
      connectedCallback() {
        window.darkroom.gallery = this;
        if (!this.childElementCount) {
          this.said = make("p", { className: "dr-hint", role: "status" });
          this.cards = make("div", { className: "dr-cards" });
          this.more = button("Older", () => this.look(this.next), { hidden: true });
          const drop = window.darkroom.dropPlace("Drop a PNG made here to have its settings back", (file) => this.restore(file));
          drop.id = "dr-restore-drop";
          this.append(drop, this.said, this.cards, this.more);
          const seen = (entries) => entries.some((each) => each.isIntersecting) && this.look(); // another tab may have drawn
          new IntersectionObserver(seen).observe(this);
        }
        this.look();
      }

      async restore(file) {
        const note = await window.darkroom.noteOf(file);
        this.said.textContent = note?.model ? window.darkroom.restore(note) : "This picture does not say how it was made.";
      }

      /** The next jobs that have ended and have pictures, as those may that were cancelled on the way. */
      async ended(before) {
        for (let looked = 1; ; looked++) {
          const found = await window.darkroom.ask(`/v1/jobs?count=24${before === null ? "" : `&before=${before}`}`);
          const jobs = found.jobs.filter((job) => job.ended !== null && job.pictures.length);
          if (jobs.length || found.next === null || looked === MOST_LOOKS) return { jobs, next: found.next };
          before = found.next;
        }
      }

      async look(before = null) {
        try {
          const found = await this.ended(before);
          const newest = found.jobs.map((job) => job.id).join();
          if (before === null && newest === this.newest) return; // what is seen stays, with older ones below it
          if (before !== null && before !== this.next) return; // clicked twice, or all was shown anew meanwhile
          if (before === null) this.newest = newest;
          const cards = found.jobs.flatMap((job) => job.pictures.map((picture) => this.card(job, picture)));
          if (before === null) this.cards.replaceChildren(...cards);
          else this.cards.append(...cards);
          this.next = found.next;
          this.more.hidden = found.next === null;
          if (!this.cards.childElementCount && found.next === null) this.said.textContent = "Nothing here yet.";
          else if (this.said.textContent === "Nothing here yet.") this.said.textContent = "";
        } catch (error) {
          this.said.textContent = error.message;
        }
      }

      card(job, { url, note, place }) {
        const [steered, settings] = words(note);
        const image = make("img", { src: url, alt: steered, loading: "lazy", className: "dr-finished" });
        const index = note.index ? `, picture ${note.index}` : "";
        const download = make("a", { href: url, download: `${note.model}-${note.seed}-${note.index}.png`, className: "dr-button", textContent: "PNG" });
        const tools = [
          button("Again", () => this.again(job)),
          button("Settings", () => (this.said.textContent = window.darkroom.restore(note))),
          download,
          window.darkroom.sureButton("Delete", job.pictures.length > 1 ? `Delete all ${job.pictures.length} of this job?` : "Delete it for good?", () => this.forget(job)),
        ];
        return make(
          "article",
          { className: "dr-card", dataset: { job: job.id, place, seed: note.seed } },
          image,
          make("strong", { textContent: steered }),
          make("span", { className: "dr-hint", textContent: `${note.model} · seed ${note.seed}${index}` }),
          make("span", { className: "dr-hint", textContent: settings }),
          make("div", { className: "dr-tools" }, ...tools),
        );
      }

      /** Draw a job once more; where that needs something that is not here, its settings, and what is missing. */
      again(job) {
        const { note } = job.pictures[0];
        const pictures = window.darkroom.recalled(note.pictures);
        const missing = Object.keys(note.pictures || {}).some((name) => !pictures[name]);
        if (missing || !window.darkroom.exact(job.asked)) {
          this.said.textContent = window.darkroom.restore(note);
          return;
        }
        const asked = Object.fromEntries(Object.entries(job.asked).filter(([, value]) => value !== null));
        window.darkroom.page("Draw");
        window.darkroom.result.draw({ ...asked, model: job.model, ...pictures });
      }

      async forget(job) {
        try {
          await window.darkroom.ask(`/v1/jobs/${job.id}`, { method: "DELETE" });
          if (window.darkroom.kept("job") === job.id) window.darkroom.keep("job", null);
          this.said.textContent = "Deleted.";
        } catch (error) {
          this.said.textContent = error.message; // another tab was quicker, perhaps
        }
        await this.look();
      }
    },
  );
}
