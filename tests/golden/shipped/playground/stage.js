// The place where a run is watched, and what it made is shown.

import { ICONS, announce, fill, h, icon } from "./dom.js";

const EXTENSIONS = { "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif", "video/mp4": "mp4", "video/webm": "webm", "audio/flac": "flac", "audio/mpeg": "mp3", "audio/wav": "wav", "audio/ogg": "ogg", "text/plain": "txt" };

/** The stage: empty, a run on its way, what a run made, or why it made nothing. */
export class Stage {
  constructor(element) {
    this.element = element;
    this.urls = new Map(); // by what they are of
    this.timer = null;
  }

  /** Show where the picture will be, in the shape that it will have. */
  showEmpty(workflow, values) {
    this.#clear();
    const kinds = new Set(workflow.media_types.map(kindOf));
    const makes = kinds.size === 1 ? [...kinds][0] : "";
    const words = { image: "picture", video: "video", audio: "sound" }[makes] ?? "result";
    const frame = this.#frame(values, h("div", { class: "frame-note" }, icon(ICONS[makes === "image" ? "picture" : makes] ?? ICONS.picture), h("p", {}, `The ${words} appears here`)));
    frame.classList.add("is-empty");
    fill(this.element, h("div", { class: "canvas" }, frame));
  }

  /** Show a run that has just been asked for; what is told of it comes through the result. */
  showRun(workflow, values, began = Date.now()) {
    this.#clear();
    const note = h("p", { class: "frame-note" }, "Waiting…");
    const frame = this.#frame(values, note);
    frame.classList.add("is-running");
    const bar = h("progress", { max: 1, "aria-label": "Progress of the run" });
    const what = h("p", { class: "progress-what" }, "Sending…");
    const where = h("p", { class: "progress-where" }, workflow);
    const time = h("p", { class: "progress-time" });
    fill(this.element, h("div", { class: "canvas" }, frame), h("div", { class: "progress" }, h("div", { class: "progress-text" }, what, where, time), bar));
    const tick = () => {
      time.textContent = `${((Date.now() - began) / 1000).toFixed(1)} s`;
    };
    tick();
    this.timer = setInterval(tick, 100);
    let title = "";
    let preview = null;
    let told = "";
    const tell = (text) => {
      told = what.textContent = text;
      announce(text);
    };
    return {
      lost: () => {
        what.textContent = "The connection is lost; trying again…";
        announce(what.textContent);
      },
      found: () => tell(told || "Connected again"),
      unwatched: () => {
        where.textContent = workflow;
        bar.removeAttribute("value");
        tell("This run cannot be watched now: too many are. Its result will be shown");
      },
      queued: ({ position }) => tell(position ? `Waiting for ${position} ${position === 1 ? "run" : "runs"} ahead` : "Waiting for a worker"),
      started: ({ gpu }) => {
        note.textContent = "";
        tell(gpu && gpu !== "preview" ? `Running on ${gpu}` : "Running");
      },
      node: ({ title: given, class_type: classType, done, of }) => {
        title = given || classType;
        tell(title);
        where.textContent = [workflow, of ? `node ${Math.min(done + 1, of)} of ${of}` : null].filter(Boolean).join(", ");
        bar.removeAttribute("value");
      },
      progress: ({ value, max }) => {
        told = what.textContent = `${title}, step ${value} of ${max}`;
        if (max > 0) bar.value = Math.min(value / max, 1);
      },
      preview: ({ media_type: type, data }) => {
        preview ??= frame.appendChild(h("img", { alt: "The picture so far", class: "preview" }));
        preview.src = `data:${type};base64,${data}`;
      },
    };
  }

  /** Show what a run made; `actions` are buttons. `outputs` are {media_type, filename, blob}. */
  showResult({ workflow, doc, outputs }, actions) {
    this.#clear();
    const isPlaceholder = doc.engine === "preview";
    const canvas = h("div", { class: "canvas" });
    const choose = (number) => {
      const output = outputs[number];
      const frame = h("figure", { class: "frame is-done" }, this.#shown(output, workflow, number));
      if (isPlaceholder) frame.append(h("figcaption", { class: "stand-in" }, icon(ICONS.warning), "Placeholder, drawn by the preview engine"));
      fill(canvas, frame);
      [...strip.children].forEach((item, i) => item.firstChild.setAttribute("aria-pressed", String(i === number)));
      fill(links, this.#links(output, workflow, number));
    };
    const links = h("div", { class: "links" });
    const strip = h("ul", { class: "strip", "aria-label": "Outputs", hidden: outputs.length < 2 });
    strip.append(...outputs.map((output, number) => h("li", {}, h("button", { type: "button", "aria-label": `Output ${number + 1} of ${outputs.length}`, onclick: () => choose(number) }, this.#small(output)))));
    fill(this.element, canvas, strip, h("div", { class: "result" }, this.#facts(workflow, doc, outputs), h("div", { class: "links" }, links, actions), timings(doc)));
    choose(0);
  }

  /** Show why a run made nothing; `doc` is its job, where there is one. */
  showFailure(problem, actions, doc = null) {
    this.#clear();
    const isCancelled = problem.code === "job-cancelled";
    const faults = (problem.errors ?? []).map((fault) => fault.detail).filter((text) => text !== problem.detail);
    const place = problem.file ? h("p", { class: "hint" }, `${problem.file}:${problem.line}, node ${problem.node} (${problem.class_type})`) : null;
    const about = isCancelled
      ? [h("h2", {}, "Cancelled")]
      : [icon(ICONS.warning), h("h2", {}, problem.title), h("p", {}, problem.detail), faults.map((text) => h("p", {}, text)), place];
    fill(this.element, h("div", { class: "canvas" }, h("div", { class: `frame-note failure${isCancelled ? " is-cancelled" : ""}` }, about)), h("div", { class: "result" }, h("div", { class: "links" }, actions), timings(doc)));
  }

  #clear() {
    clearInterval(this.timer);
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.urls.clear();
  }

  #frame(values, ...children) {
    const frame = h("div", { class: "frame" }, children);
    const { width, height } = values;
    // What is being typed may have any shape.
    if (width > 0 && height > 0 && width / height < 4 && height / width < 4) {
      frame.style.setProperty("--width", width);
      frame.style.setProperty("--height", height);
    }
    return frame;
  }

  #url(blob) {
    if (!this.urls.has(blob)) this.urls.set(blob, URL.createObjectURL(blob));
    return this.urls.get(blob);
  }

  #shown({ media_type: type, blob, text, width, height }, workflow, number) {
    const name = `Output ${number + 1} of ${workflow}`;
    switch (kindOf(type)) {
      case "image":
        return h("img", { src: this.#url(blob), alt: name, width, height });
      case "video":
        return h("video", { src: this.#url(blob), controls: true, loop: true, playsinline: true, autoplay: !matchMedia("(prefers-reduced-motion: reduce)").matches, muted: true, "aria-label": name });
      case "audio":
        return h("audio", { src: this.#url(blob), controls: true, "aria-label": name });
      case "text":
        return h("pre", { tabindex: "0" }, text);
      default:
        return h("p", {}, `${type}, ${blob.size} bytes`);
    }
  }

  #small({ media_type: type, blob }) {
    if (kindOf(type) === "image") return h("img", { src: this.#url(blob), alt: "" });
    return icon(ICONS[kindOf(type)] ?? ICONS.text);
  }

  #links({ blob, media_type: type, filename }, workflow, number) {
    const name = filename ?? `${workflow}-${number}.${EXTENSIONS[type] ?? "bin"}`;
    const url = this.#url(blob);
    // A document could hold a script, and would be a page of this host.
    const isPlain = ["image", "video", "audio"].includes(kindOf(type)) ? type !== "image/svg+xml" : type === "text/plain";
    return [
      h("a", { class: "secondary small", href: url, download: name }, icon(ICONS.download), "Download"),
      isPlain ? h("a", { class: "secondary small", href: url, target: "_blank", rel: "noopener" }, icon(ICONS.open), "Open") : null,
    ];
  }

  #facts(workflow, doc, outputs) {
    const [first] = outputs;
    const facts = {
      Workflow: workflow,
      Time: seconds(doc.seconds),
      Cost: cost(doc.cost),
      GPU: doc.engine === "preview" ? "none (preview)" : doc.gpu,
      Seed: doc.seed,
      Size: first.width ? `${first.width} × ${first.height}` : null,
    };
    return h("dl", { class: "facts" }, Object.entries(facts).filter(([, fact]) => fact != null).map(([name, fact]) => h("div", {}, h("dt", {}, name), h("dd", { "data-fact": name.toLowerCase() }, fact))));
  }
}

const PARTS = { startup: "Start-up", queue: "Queue", execution: "Run" };

/** Return what a job took, part by part; the start of a worker may cost more than the run. */
function timings(doc) {
  // Runs of a history may be older than what jobs say of themselves.
  if (!doc?.timings) return null;
  const rows = Object.entries(PARTS).map(([part, name]) => [name, doc.timings[part]]);
  const sum = (key) => (rows.some(([, took]) => took[key] == null) ? null : rows.reduce((all, [, took]) => all + took[key], 0));
  const row = (name, took) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, seconds(took.seconds)), h("td", {}, cost(took.usd) ?? "unknown"));
  const all = { seconds: sum("seconds"), usd: sum("usd") };
  return h(
    "details",
    { class: "timings" },
    h("summary", {}, `${seconds(all.seconds)}${all.usd == null ? "" : ` and ${cost(all.usd)}`} in all, waiting included`),
    h("table", {}, h("tbody", {}, rows.map(([name, took]) => row(name, took)))),
  );
}

/** Return image, video, audio or text; empty for anything else. */
export const kindOf = (type) => /^(image|video|audio|text)\//.exec(type)?.[1] ?? "";

const seconds = (number) => `${number < 10 ? number.toFixed(2) : number.toFixed(1)} s`;

/** Return USD as it reads best: two digits that say something, however little it is. */
export function cost(usd) {
  if (usd == null) return null;
  if (usd === 0) return "$0";
  return usd >= 0.1 ? `$${usd.toFixed(2)}` : `$${Number(usd.toPrecision(2)).toFixed(6).replace(/0+$/, "")}`;
}
