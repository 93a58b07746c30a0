// Pictures, videos and sounds that are dropped, pasted or picked, and shown before they are sent.

import { ICONS, h, icon } from "./dom.js";
import { FieldError } from "./params.js";

const WORDS = { image: "picture", video: "video", audio: "sound" };

/** Return the control of a param that takes one file, or the URL of one. */
export function mediaControl(param, id) {
  const word = WORDS[param.kind];
  const target = h("input", { id, type: "file", accept: `${param.kind}/*`, class: "unseen" });
  const link = h("input", { type: "url", class: "link", placeholder: "or its URL", "aria-label": `${param.label}, URL`, autocomplete: "off", spellcheck: "false" });
  const prompt = h("span", { class: "drop-text" }, icon(ICONS[param.kind] ?? ICONS.picture), h("span", {}, `Drop or paste a ${word}, or `, h("u", {}, "choose a file")));
  const area = h("label", { for: id, class: "drop-area" }, prompt);
  const zone = h("div", { class: "drop" }, target, area, link);
  let file = null;
  let shown = null;

  const show = (next) => {
    file = next;
    if (shown) URL.revokeObjectURL(shown.dataset.url);
    shown?.remove();
    shown = null;
    link.hidden = area.hidden = Boolean(file);
    if (file) {
      link.value = "";
      shown = preview(file, param.kind, () => {
        take(null);
        target.focus();
      });
      zone.append(shown);
    }
  };
  const take = (next) => {
    target.value = "";
    // One without a type may be what is wanted all the same.
    if (next?.type && !next.type.startsWith(`${param.kind}/`)) {
      const detail = `${next.name || "this"} is no ${word}`;
      target.dispatchEvent(new CustomEvent("refused", { detail, bubbles: true }));
      return;
    }
    show(next);
    target.dispatchEvent(new Event("settled", { bubbles: true }));
  };

  target.addEventListener("change", () => target.files[0] && take(target.files[0]));
  receive(zone, (files) => take(files[0]));
  return {
    parts: [zone],
    target,
    accepts: (other) => other.type.startsWith(`${param.kind}/`),
    take,
    get isEmpty() {
      return !file && link.value === "";
    },
    read() {
      if (file) return file;
      const text = link.value.trim();
      if (text !== "" && !/^(https?|data):/.test(text)) throw new FieldError("a URL starts with https://");
      return text === "" ? undefined : text;
    },
    write(value) {
      show(value instanceof Blob ? value : null);
      link.value = typeof value === "string" ? value : "";
    },
  };
}

/** Return the control of the files that a graph loads, by the names that it uses. */
export function filesControl(id) {
  const target = h("input", { id, type: "file", multiple: true, accept: "image/*,video/*,audio/*", class: "unseen" });
  const area = h("label", { for: id, class: "drop-area low" }, h("span", { class: "drop-text" }, icon(ICONS.picture), h("span", {}, "Drop the files that the graph loads, or ", h("u", {}, "choose them"))));
  const list = h("ul", { class: "files" });
  const zone = h("div", { class: "drop" }, target, area, list);
  let files = {};

  const show = () => {
    list.replaceChildren(
      ...Object.entries(files).map(([name, file]) =>
        h("li", {}, h("span", {}, name), h("span", { class: "hint" }, typeof file === "string" ? "URL" : sizeOf(file)), h("button", { type: "button", class: "quiet small", "aria-label": `Remove ${name}`, onclick: () => take(name) }, "Remove")),
      ),
    );
  };
  const take = (name, file) => {
    if (file) files[name] = file;
    else delete files[name];
    show();
    target.dispatchEvent(new Event("settled", { bubbles: true }));
  };
  const add = (found) => found.forEach((file) => take(file.name, file));
  target.addEventListener("change", () => {
    add([...target.files]);
    target.value = "";
  });
  receive(zone, add);
  return {
    parts: [zone],
    target,
    read: () => (Object.keys(files).length ? { ...files } : undefined),
    write(value) {
      files = { ...value };
      show();
    },
  };
}

export const sizeOf = (file) =>
  file.size < 1e6 ? `${Math.max(1, Math.round(file.size / 1e3))} kB` : `${(file.size / 1e6).toFixed(1)} MB`;

function receive(zone, take) {
  let depth = 0;
  const lit = (change) => zone.classList.toggle("is-over", (depth = Math.max(0, depth + change)) > 0);
  zone.addEventListener("dragenter", () => lit(1));
  zone.addEventListener("dragleave", () => lit(-1));
  zone.addEventListener("dragover", (event) => event.preventDefault());
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    lit(-depth);
    const files = [...event.dataTransfer.files];
    if (files.length) take(files);
  });
}

function preview(file, kind, remove) {
  const url = URL.createObjectURL(file);
  const name = file.name ?? "pasted";
  const size = h("span", { class: "hint" }, sizeOf(file));
  const medium =
    kind === "image"
      ? h("img", { src: url, alt: `The chosen picture, ${name}` })
      : h(kind, { src: url, controls: true, preload: "metadata", "aria-label": `The chosen ${WORDS[kind]}, ${name}` });
  const measure = () => {
    const [width, height] = [medium.naturalWidth ?? medium.videoWidth, medium.naturalHeight ?? medium.videoHeight];
    if (width) size.textContent = `${width} × ${height}, ${sizeOf(file)}`;
  };
  medium.addEventListener("error", () => medium.replaceWith(h("p", { class: "hint" }, "This browser cannot show it.")));
  medium.addEventListener("load", measure);
  medium.addEventListener("loadedmetadata", measure);
  const figure = h("figure", { class: "chosen" }, medium, h("figcaption", {}, h("span", { class: "file-name" }, name), size, h("button", { type: "button", class: "quiet small", "aria-label": `Remove ${name}`, onclick: remove }, "Remove")));
  figure.dataset.url = url;
  return figure;
}
