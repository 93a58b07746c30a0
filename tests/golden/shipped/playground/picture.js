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
}

/** Light the node that runs; those before it in this run have been done. */
export function light(element, node) {
  for (const group of element.querySelectorAll(".node.is-running")) group.classList.replace("is-running", "is-done");
  const groups = [...element.querySelectorAll(".node")];
  const running = groups.find((group) => group.dataset.node === node);
  running?.classList.remove("is-done");
  running?.classList.add("is-running");
  for (const path of element.querySelectorAll(".link")) path.classList.toggle("is-running", path.dataset.to === node);
  running?.scrollIntoView?.({ block: "nearest", inline: "nearest", container: "nearest" });
}

/** Take all light from the nodes; after a run that was whole all of those that ran stay done. */
export function dim(element, { keepDone = false } = {}) {
  for (const group of element.querySelectorAll(".node")) {
    if (keepDone && group.classList.contains("is-running")) group.classList.add("is-done");
    if (!keepDone) group.classList.remove("is-done");
    group.classList.remove("is-running");
  }
  for (const path of element.querySelectorAll(".link")) path.classList.remove("is-running");
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
