// The graph of a workflow as a picture, with what runs lit.

const SVG = "http://www.w3.org/2000/svg";
// What is taken over from the file; anything else, scripts and styles among it, stays behind.
const ELEMENTS = new Set(["svg", "g", "title", "rect", "text", "path"]);
const ATTRIBUTES = new Set(["viewBox", "width", "height", "role", "aria-label", "class", "x", "y", "rx", "d", "fill", "stroke", "data-node", "data-from", "data-to"]);

/** Show an SVG document, given as text, in place of what an element holds. */
export function showPicture(element, text) {
  // Its style is for where it stands alone, and even to parse one is against the page's policy.
  const bare = text.replace(/<style>.*?<\/style>/s, "");
  const parsed = new DOMParser().parseFromString(bare, "image/svg+xml");
  const picture = copy(parsed.documentElement);
  picture.style.setProperty("--natural", `${picture.getAttribute("width")}px`);
  element.replaceChildren(picture);
  element.scrollTo({ left: 0, top: 0 });
}

/** What is known of the nodes of a run. */
export class Lights {
  constructor() {
    this.begin();
  }

  /** Note that the run begins, perhaps once more. */
  begin() {
    this.done = new Set();
    this.cached = new Set();
    this.running = null;
    this.failed = null;
  }

  /** Note that the engine has the results of nodes, which do not run. */
  keep(nodes) {
    this.cached = new Set(nodes);
  }

  /** Note that a node runs; the one before it is done. */
  run(node) {
    if (this.running !== null) this.done.add(this.running);
    this.running = node;
  }

  /** Whether there is anything to show. */
  get isAny() {
    return this.running !== null || this.failed !== null || this.done.size + this.cached.size > 0;
  }

  /** Note how the run ended. */
  end({ status, problem, outputs }) {
    if (status === "succeeded") {
      this.run(null);
      // A node that is like another is not run, either, and nothing is told of it.
      for (const { node } of outputs) this.done.add(node);
    } else {
      this.begin();
      this.failed = problem?.node ?? null;
    }
  }
}

/** Light the nodes of the picture that an element holds; without lights it is dark. */
export function paint(element, lights) {
  for (const group of element.querySelectorAll(".node")) {
    const { node } = group.dataset;
    group.classList.toggle("is-running", node === lights?.running);
    group.classList.toggle("is-failed", node === lights?.failed);
    group.classList.toggle("is-done", node !== lights?.running && Boolean(lights?.done.has(node)));
    group.classList.toggle("is-cached", Boolean(lights?.cached.has(node)));
  }
  for (const path of element.querySelectorAll(".link")) path.classList.toggle("is-running", path.dataset.to === lights?.running);
}

/** Scroll an element, and nothing around it, to the node that runs or failed. */
export function follow(element) {
  const node = element.querySelector(".node.is-running, .node.is-failed");
  if (!node) return;
  const [place, view] = [node.getBoundingClientRect(), element.getBoundingClientRect()];
  if (place.left < view.left || place.right > view.right) {
    element.scrollBy({ left: (place.left + place.right - view.left - view.right) / 2 });
  }
}

function copy(source) {
  const element = document.createElementNS(SVG, source.localName);
  for (const { name, value } of source.attributes) {
    if (ATTRIBUTES.has(name)) element.setAttribute(name, value);
  }
  for (const child of source.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) element.append(child.data);
    else if (child.nodeType === Node.ELEMENT_NODE && ELEMENTS.has(child.localName)) element.append(copy(child));
  }
  return element;
}
