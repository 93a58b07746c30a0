// Elements, made without any HTML: what comes from the service stays text.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Return an element. Properties that start with `on` are listeners; true and false set and leave out
 * an attribute. Children that are null are left out.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  return filled(element, properties, children);
}

/** Return an icon that stands beside words, or on a button that has a label. */
export function icon(path) {
  const svg = document.createElementNS(SVG, "svg");
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return filled(svg, { viewBox: "0 0 16 16", "aria-hidden": "true", class: "icon" }, []);
}

export const ICONS = {
  cancelled: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 1 0 0-11zM4.2 4.2l7.6 7.6",
  dice: "M3.5 2h9A1.5 1.5 0 0 1 14 3.5v9a1.5 1.5 0 0 1-1.5 1.5h-9A1.5 1.5 0 0 1 2 12.5v-9A1.5 1.5 0 0 1 3.5 2ZM5.5 5.5h.01M8 8h.01M10.5 10.5h.01M10.5 5.5h.01M5.5 10.5h.01",
  download: "M8 2.5v7.5m0 0 3-3m-3 3-3-3M3 13h10",
  open: "M9 2.5h4.5V7M13 3 7.5 8.5M12 9.5v3.5H3V4h3.5",
  picture: "M2.5 3h11v10h-11zM2.5 11l3-3.5 2.5 2.5 2-2 3.5 3.5M10.7 5.8h.01",
  reuse: "M3 8a5 5 0 1 0 1.6-3.7M3 2.5v2.7h2.7",
  video: "M2.5 4h7.5v8H2.5zM10 7l3.5-2v6L10 9",
  audio: "M3 6.5v3h2.2L8.5 12V4L5.2 6.5zM11 6a3 3 0 0 1 0 4",
  text: "M3 4h10M3 7h10M3 10h6",
  warning: "M8 2.5 14 13H2zM8 6.5V9.5M8 11.3h.01",
};

/** Put elements in place of all that another holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child != null));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Say something to screen readers, once whatever they say now is said. */
export function announce(text) {
  byId("status").textContent = text;
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else if (value === true) {
      element.setAttribute(name, "");
    } else if (value !== false && value != null) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}
