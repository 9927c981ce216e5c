"use strict";
// Pictures that a person gives: from a file, dropped, or pasted.

{
  const { make, button } = window.darkroom;

  window.darkroom.dataUrl = (blob) =>
    new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(blob);
    });

  /** The note in a PNG of ours (an iTXt chunk that is not packed), or null. */
  window.darkroom.noteOf = async (blob) => {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const view = new DataView(bytes.buffer);
    const words = new TextDecoder();
    for (let place = 8; place + 12 <= bytes.length; ) {
      const length = view.getUint32(place);
      const data = bytes.subarray(place + 8, place + 8 + length);
      if (words.decode(bytes.subarray(place + 4, place + 8)) === "iTXt") {
        const [key, , ...rest] = words.decode(data).split("\0");
        if (key === "darkroom") {
          try {
            return JSON.parse(rest[rest.length - 1]);
          } catch {
            return null;
          }
        }
      }
      place += 12 + length;
    }
    return null;
  };

  // A file that is dropped beside such a place would be opened instead of the page, and all that was painted be lost.
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());

  /** Let a file be dropped on an element. */
  window.darkroom.takesDrops = (place, taken) => {
    for (const kind of ["dragenter", "dragover"])
      place.addEventListener(kind, (event) => {
        event.preventDefault();
        place.classList.add("over");
      });
    for (const kind of ["dragleave", "drop"]) place.addEventListener(kind, () => place.classList.remove("over"));
    place.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      const [file] = event.dataTransfer.files;
      if (file) taken(file);
    });
  };

  /** A button that asks for a file. what: for whoever points at it, or hears it. */
  window.darkroom.openButton = (what, accept, taken) => {
    const input = make("input", { type: "file", accept });
    input.onchange = () => {
      const [file] = input.files;
      input.value = "";
      if (file) taken(file);
    };
    return button("Open", () => input.click(), { title: what, aria: { label: what } });
  };

  /** Save what a data URL holds as a file. */
  window.darkroom.save = (name, url) => make("a", { href: url, download: name }).click();

  /** A place to give a picture to: click, drop, or paste while it has the focus, which its input takes. */
  window.darkroom.dropPlace = (words, taken) => {
    const input = make("input", { type: "file", accept: "image/png,image/jpeg,image/webp", className: "dr-file" });
    const place = make("label", { className: "dr-drop" }, make("span", { textContent: words }), input);
    const take = (file) => file && taken(file);
    input.setAttribute("aria-label", words);
    input.onchange = () => {
      take(input.files[0]);
      input.value = "";
    };
    window.darkroom.takesDrops(place, take);
    place.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
    return place;
  };

  async function decoded(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    return image;
  }
  window.darkroom.decoded = decoded;

  const KINDS = {
    "darkroom-image": { field: "image", ask: "Drop a picture here, or click to choose one", fitted: true },
    "darkroom-small": { field: "low_res", ask: "Drop a small picture here, or click to choose one" },
    "darkroom-guide": { field: "guide", ask: "Drop a guide picture here, or click to choose one", optional: true, folded: ["Guide picture", "What is drawn will look like it from afar."] },
  };

  /** A picture that is sent as it came, or, where a model needs other sides, cut and scaled as the server would. */
  class Picture extends HTMLElement {
    connectedCallback() {
      if (this.childElementCount) return;
      this.kind = KINDS[this.localName];
      this.tab = window.darkroom.told(this).tab;
      if (this.tab) this.setAttribute("data-tab", this.tab);
      this.shown = make("img", { alt: "", hidden: true, className: "dr-given" });
      this.words = make("p", { className: "dr-hint", role: "status", textContent: "" });
      this.away = button("Remove", () => this.give(null), { hidden: true });
      const parts = [window.darkroom.dropPlace(this.kind.ask, (file) => this.take(file)), this.shown, this.words, this.away];
      this.append(...(this.kind.folded ? [this.fold(parts)] : parts));
    }

    /** Parts that are seen when they are wanted. */
    fold(parts) {
      const [title, help] = this.kind.folded;
      const hint = make("p", { className: "dr-hint", textContent: help });
      this.folder = make("details", { className: "dr-fold" }, make("summary", { textContent: title }), hint, ...parts);
      return this.folder;
    }

    async take(file) {
      try {
        await this.give(await window.darkroom.dataUrl(file));
      } catch {
        this.words.textContent = `This is no picture that can be read here${this.url ? "; the one before stays" : ""}.`;
      }
    }

    /** Take a picture as a data URL, or none. */
    async give(url) {
      if (url) await decoded(url);
      this.original = this.url = url;
      this.shown.hidden = !url;
      this.away.hidden = !url || !this.kind.optional;
      this.words.textContent = "";
      if (url && this.folder) this.folder.open = true;
      await this.show();
    }

    /** Bring the picture to the chosen model, which may be another one later. */
    async show() {
      if (this.tab && window.darkroom.absent(this)) return;
      const image = this.original && (await decoded(this.original));
      if (image) {
        const side = this.kind.fitted && window.darkroom.suitable(image, window.darkroom.models[window.darkroom.chosen(this.tab)]);
        this.url = side ? window.darkroom.cut(image, side) : this.original;
        this.words.textContent = `${image.width} x ${image.height} pixels${side ? `, brought to ${side} x ${side}` : ""}`;
        this.shown.src = this.url;
      }
      await this.ready?.(image ? await decoded(this.url) : null);
    }

    empty() {
      return !this.url;
    }

    async fields() {
      if (!this.url && !this.kind.optional) throw new Error("give a picture first");
      return this.url ? { [this.kind.field]: this.url } : {};
    }

    async restore(asked) {
      await this.give(asked[this.kind.field] ?? null);
    }
  }

  /** The side of the square that a picture is brought to for a model, or null where it suits the model as it is. */
  window.darkroom.suitable = ({ width, height }, model) => {
    const side = model.size[0];
    const fits = [width, height].every((each) => each % model.multiple === 0);
    return fits && width * height <= 4 * side * side ? null : side;
  };

  /** The middle of a picture as a square of this side, a PNG. */
  window.darkroom.cut = (image, side) => {
    const canvas = make("canvas", { width: side, height: side });
    const whole = Math.min(image.width, image.height);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    const left = (image.width - whole) / 2;
    pen.drawImage(image, left, (image.height - whole) / 2, whole, whole, 0, 0, side, side);
    return canvas.toDataURL("image/png");
  };

  for (const name of Object.keys(KINDS)) customElements.define(name, class extends Picture {});
}
