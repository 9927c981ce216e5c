"use strict";
// What is being drawn: previews that become pictures, how far it is, and a way to stop it.

{
  const { make, button } = window.darkroom;

  /** Two pictures in one frame, with a slider between them. */
  window.darkroom.compare = (before, after) => {
    const over = make("img", { src: before, alt: "before", className: "dr-before" });
    const slider = make("input", { type: "range", min: 0, max: 100, value: 50, className: "dr-range" });
    slider.setAttribute("aria-label", "Compare: before on the left, after on the right");
    const frame = make("div", { className: "dr-compare" }, make("img", { src: after, alt: "after" }), over);
    const move = () => (over.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`);
    slider.oninput = move;
    move();
    return make("div", { className: "dr-comparing" }, frame, slider);
  };

  customElements.define(
    "darkroom-result",
    class extends HTMLElement {
      connectedCallback() {
        if (this.childElementCount) return;
        this.said = make("p", { className: "dr-said", role: "status", textContent: "Nothing drawn yet." });
        this.share = make("span", { className: "dr-hint" }); // no part of what is read out at every change
        this.bar = make("progress", { max: 1, value: 0, hidden: true, aria: { label: "Drawn so far" } });
        this.stop = button("Cancel", () => this.cancel(), { hidden: true, id: "dr-cancel" });
        this.frames = make("div", { className: "dr-frames" });
        this.append(make("div", { className: "dr-tools" }, this.said, this.share, this.stop), this.bar, this.frames);
        window.darkroom.result = this;
        this.takeUp();
      }

      say(words, wrong = false) {
        if (this.said.textContent !== words) this.said.textContent = words;
        this.said.classList.toggle("wrong", wrong);
      }

      cancel(job = this.job) {
        if (job) window.darkroom.ask(`/v1/jobs/${job.id}/cancel`, { method: "POST" }).catch((error) => this.say(error.message, true));
      }

      /** Draw what is asked for; a job that this page draws already is cancelled first. */
      async draw(asked) {
        this.cancel();
        this.say("Asking ...");
        await this.see(() => window.darkroom.begin(asked), asked);
      }

      /** Go on with what this tab drew when it was loaded again, if it is still there. */
      async takeUp() {
        const id = window.darkroom.kept("job");
        const job = id && (await window.darkroom.ask(`/v1/jobs/${id}`).catch(() => null));
        if (job && !this.turn) await this.see(async () => job, {});
      }

      /** The job that `begin` answers, to its end. asked: with the pictures that were given for it. */
      async see(begin, asked) {
        const turn = (this.turn = (this.turn || 0) + 1);
        const mine = () => turn === this.turn;
        try {
          const job = await begin();
          if (!mine()) return this.cancel(job); // asked for again before it was answered
          this.job = job;
          window.darkroom.keep("job", job.id);
          this.empty(job.total);
          for (const { place, url } of job.pictures) this.put(place, url); // before this page was loaded again
          const done = await window.darkroom.follow(job.id, (kind, data) => mine() && this.told(kind, data));
          if (mine()) await this.end(done, asked);
        } catch (error) {
          if (mine()) this.say(error.message, true);
        } finally {
          if (mine()) {
            this.job = null;
            this.share.textContent = "";
            this.bar.hidden = this.stop.hidden = true;
          }
          window.darkroom.gallery?.look();
        }
      }

      empty(total) {
        this.bar.hidden = this.stop.hidden = false;
        this.bar.value = 0;
        this.frames.replaceChildren(...Array.from({ length: total }, () => make("div", { className: "dr-frame" }, make("img", { alt: "", className: "dr-preview" }))));
      }

      told(kind, data) {
        if (kind === "state") this.say({ queued: "Waiting ...", running: "Drawing ...", lost: "The server does not answer, trying again ..." }[data.state] || data.state);
        if (kind === "step") {
          this.bar.value = data.done / data.total;
          this.share.textContent = `${Math.round((100 * data.done) / data.total)} %`;
          this.say("Drawing ...");
        }
        if (kind === "preview") {
          const shown = this.frames.children[data.place]?.firstChild;
          if (shown?.className === "dr-preview") shown.src = data.picture;
        }
        if (kind === "picture") this.put(data.place, `/v1/jobs/${this.job.id}/pictures/${data.place}`);
      }

      /** A finished picture. words: which of several prompts it is of. */
      put(place, url, words = "") {
        const image = make("img", { src: url, alt: words || `picture ${place + 1}`, className: "dr-finished" });
        const whole = make("a", { href: url, target: "_blank", rel: "noopener", title: "open it alone" }, image);
        const caption = words ? [make("span", { className: "dr-caption", textContent: words, title: words, aria: { hidden: true } })] : [];
        this.frames.children[place]?.replaceChildren(whole, ...caption);
      }

      async end(job, asked) {
        if (job.state !== "done") {
          this.say(job.error || `The job was ${job.state}.`, job.state === "failed");
          return;
        }
        for (const { place, url, note } of job.pictures) {
          this.put(place, url, Array.isArray(job.asked.prompt) ? note.prompt : "");
          for (const [field, hash] of Object.entries(note.pictures || {})) if (asked[field]) window.darkroom.remember(hash, asked[field]);
        }
        if (asked.low_res) {
          const compared = job.pictures.map((each) => window.darkroom.compare(asked.low_res, each.url));
          this.frames.replaceChildren(...compared);
        }
        this.say(`Done: seed ${job.asked.seed}, ${((job.ended - job.started) || 0).toFixed(1)} s`);
        this.dataset.done = job.id;
      }
    },
  );
}
