// The controls of a form: one for each kind of param.
//
// A control has `parts`, the elements to show; `head`, one to show beside the label; `target`, the
// element that the label is for; `read`, which returns its value, undefined when it has none, and
// throws a FieldError when what it holds is no value; and `write`, which sets it.

import { ICONS, h, icon } from "./dom.js";
import { filesControl, mediaControl } from "./media.js";
import { FieldError, sliderOf } from "./params.js";

const LARGEST_SEED = Number.MAX_SAFE_INTEGER;

/** Return the control of a param; `listModels` returns the files of a model folder, or null. */
export function controlOf(param, id, listModels) {
  switch (param.kind) {
    case "integer":
    case "number":
      return numberControl(param, id);
    case "boolean":
      return booleanControl(param, id);
    case "choice":
      return choiceControl(param, id, param.options.map(String), (text) => param.options.find((option) => String(option) === text));
    case "seed":
      return seedControl(param, id);
    case "image":
    case "video":
    case "audio":
      return mediaControl(param, id);
    case "files":
      return filesControl(id);
    case "model":
      return modelControl(param, id, listModels);
    case "graph":
      return graphControl(id);
    case "longtext":
      return textControl(param, h("textarea", { id, rows: param.isRequired ? 4 : 2, spellcheck: "true" }));
    default:
      return textControl(param, h("input", { id, type: "text", autocomplete: "off", spellcheck: "false" }));
  }
}

function textControl(param, target) {
  return {
    parts: [target],
    target,
    read: () => (target.value === "" && (param.isRequired || param.isOptional || param.group) ? undefined : target.value),
    write: (value) => {
      target.value = value ?? param.default ?? "";
    },
  };
}

function numberControl(param, id) {
  const slider = sliderOf(param);
  const target = h("input", {
    id,
    type: "number",
    class: "number",
    inputmode: param.kind === "integer" && !(param.minimum < 0) ? "numeric" : "decimal",
    step: param.kind === "integer" ? param.step : "any",
    min: param.minimum,
    max: param.maximum,
    placeholder: param.default,
  });
  const range = slider && h("input", { type: "range", min: slider.minimum, max: slider.maximum, step: slider.step, "aria-label": `${param.label}, slider` });
  const follow = () => {
    if (!range) return;
    range.value = target.value === "" ? (param.default ?? slider.minimum) : target.value;
    const share = (range.value - slider.minimum) / (slider.maximum - slider.minimum);
    range.style.setProperty("--share", `${100 * share}%`);
  };
  target.addEventListener("input", follow);
  range?.addEventListener("input", () => {
    target.value = Number(Number(range.value).toFixed(6));
    follow();
  });
  return {
    head: target,
    parts: range ? [range] : [],
    target,
    isNarrow: true,
    read() {
      if (target.validity.badInput) throw new FieldError("this is no number");
      return target.value === "" ? undefined : Number(target.value);
    },
    write(value) {
      target.value = value ?? param.default ?? "";
      follow();
    },
  };
}

function booleanControl(param, id) {
  const target = h("input", { id, type: "checkbox", role: "switch", class: "switch" });
  return {
    head: target,
    parts: [],
    target,
    read: () => target.checked,
    write: (value) => {
      target.checked = value ?? param.default ?? false;
    },
  };
}

function choiceControl(param, id, names, valueOf) {
  const isOpen = param.default === undefined;
  const target = h("select", { id }, isOpen ? h("option", { value: "" }, "Choose…") : null, names.map((name) => h("option", { value: name }, name)));
  return {
    parts: [target],
    target,
    read() {
      if (target.selectedIndex < 0) throw new FieldError("choose one: what was chosen is not there any more");
      return target.value === "" && isOpen ? undefined : valueOf(target.value);
    },
    write: (value) => {
      target.value = String(value ?? param.default ?? "");
    },
  };
}

function seedControl(param, id) {
  const target = h("input", { id, type: "text", class: "seed", inputmode: "numeric", autocomplete: "off", placeholder: "random" });
  const highest = Math.min(param.maximum ?? LARGEST_SEED, LARGEST_SEED);
  const draw = () => {
    const [high, low] = crypto.getRandomValues(new Uint32Array(2));
    const share = ((high >>> 11) * 2 ** 32 + low) / 2 ** 53;
    target.value = Math.floor((param.minimum ?? 0) + share * (highest - (param.minimum ?? 0)));
    changed();
  };
  const random = h("button", { type: "button", class: "secondary small", "aria-pressed": "true", onclick: () => { target.value = ""; changed(); } }, "Random");
  const dice = h("button", { type: "button", class: "secondary small square", "aria-label": "Draw a seed and keep it", title: "Draw a seed and keep it", onclick: draw }, icon(ICONS.dice));
  const changed = () => {
    random.setAttribute("aria-pressed", String(target.value === ""));
    target.dispatchEvent(new Event("change", { bubbles: true }));
  };
  target.addEventListener("input", () => random.setAttribute("aria-pressed", String(target.value === "")));
  return {
    parts: [h("div", { class: "joined" }, target, dice, random)],
    target,
    read() {
      const text = target.value.trim();
      if (text === "") return undefined;
      if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(Number(text))) throw new FieldError(`a seed is a whole number up to ${LARGEST_SEED}`);
      return Number(text);
    },
    write(value) {
      target.value = value ?? "";
      random.setAttribute("aria-pressed", String(target.value === ""));
    },
  };
}

function modelControl(param, id, listModels) {
  const place = h("div");
  let control = textControl(param, h("input", { id, type: "text", autocomplete: "off", spellcheck: "false", placeholder: "file.safetensors" }));
  place.append(control.target);
  let wanted = param.example;
  const found = listModels(param.folder).then((files) => {
    if (files === null) return;
    const chosen = control.read() ?? wanted;
    const names = [...files];
    control = choiceControl({ ...param, default: undefined }, id, names, (text) => text);
    control.target.disabled = place.querySelector("input").disabled;
    place.replaceChildren(control.target);
    write(names.includes(chosen) ? chosen : names.length === 1 ? names[0] : undefined);
  });
  function write(value) {
    wanted = value;
    // A file that was there once is shown all the same: the service says what is wrong with it.
    const isKnown = value === undefined || [...(control.target.options ?? [])].some((option) => option.value === value);
    if (control.target.options && !isKnown) control.target.append(h("option", { value }, value));
    control.write(value);
  }
  return {
    parts: [place],
    get target() {
      return control.target;
    },
    found,
    read: () => control.read(),
    write: (value) => write(value ?? param.default ?? param.example),
  };
}

function graphControl(id) {
  const target = h("textarea", { id, rows: 8, class: "code", spellcheck: "false", placeholder: "Paste a graph, or drop its file here" });
  const picker = h("input", { type: "file", accept: ".json,application/json", class: "unseen", id: `${id}-file` });
  const about = h("p", { class: "hint", "aria-live": "polite" });
  const zone = h("div", { class: "graph-input" }, target, h("p", { class: "pick" }, picker, h("label", { for: `${id}-file` }, "Choose a file"), about));
  const tell = () => {
    about.textContent = target.value.trim() === "" ? "" : aboutGraph(target.value);
  };
  const take = async (file) => {
    if (!file) return;
    target.value = await file.text();
    tell();
    target.dispatchEvent(new Event("change", { bubbles: true }));
  };
  picker.addEventListener("change", () => take(picker.files[0]));
  target.addEventListener("input", tell);
  zone.addEventListener("dragover", (event) => event.preventDefault());
  zone.addEventListener("drop", (event) => {
    const [file] = event.dataTransfer.files;
    if (!file) return;
    event.preventDefault();
    take(file);
  });
  return {
    parts: [zone],
    target,
    read() {
      if (target.value.trim() === "") return undefined;
      try {
        return JSON.parse(target.value);
      } catch (error) {
        throw new FieldError(`this is no JSON: ${error.message}`);
      }
    },
    write(value) {
      target.value = value === undefined ? "" : JSON.stringify(value, null, 2);
      tell();
    },
  };
}

function aboutGraph(text) {
  try {
    const graph = JSON.parse(text);
    if (Array.isArray(graph?.nodes)) return `${graph.nodes.length} nodes, as the canvas saves them`;
    const nodes = Object.values(graph ?? {}).filter((node) => node?.class_type);
    return nodes.length ? `${nodes.length} nodes, in API format` : "no nodes of a graph in it";
  } catch {
    return "no JSON yet";
  }
}
