// The form of a workflow, made from its schema.

import { controlOf } from "./controls.js";
import { fill, h } from "./dom.js";
import { FieldError, paramsOf } from "./params.js";

/** A form; `listModels` returns the files of a model folder. What is typed stays in it while it is not shown. */
export class Form {
  constructor(alert, workflow, listModels) {
    this.alert = alert;
    this.params = paramsOf(workflow);
    this.fields = new Map(this.params.map((param) => [param.name, new Field(param, listModels)]));
    this.groups = [...new Set(this.params.map((param) => param.group).filter(Boolean))].map(
      (names) => new Group(names.map((name) => this.fields.get(name))),
    );
    const shown = new Set();
    this.elements = this.params.map((param) => {
      const group = this.groups.find((one) => one.fields.includes(this.fields.get(param.name)));
      if (!group) return this.fields.get(param.name).element;
      if (shown.has(group)) return null;
      shown.add(group);
      return group.element;
    }).filter(Boolean);
    widenLast(this.elements);
    this.write({});
  }

  /** Show the form in place of what an element holds. */
  showIn(element) {
    this.alert.hidden = true;
    fill(element, this.elements);
  }

  /**
   * Return the values by name, without those that are left out.
   *
   * What is no value is said at its field, and null is returned.
   */
  read() {
    this.clearErrors();
    const { values, faults } = this.peek();
    if (faults.length === 0) return values;
    this.show({ title: "Params are wrong", errors: faults });
    return null;
  }

  /** Return the values by name, and what is wrong with those that are none; nothing is said of it. */
  peek() {
    const values = {};
    const faults = [];
    for (const [name, field] of this.fields) {
      try {
        const value = field.read();
        if (value !== undefined) values[name] = value;
      } catch (error) {
        if (!(error instanceof FieldError)) throw error;
        faults.push({ pointer: `#/${name}`, detail: error.message });
      }
    }
    return { values, faults };
  }

  /** Set all fields: to these values, else to what they are at first. */
  write(values, { isWhole = false } = {}) {
    this.clearErrors();
    for (const group of this.groups) group.chooseFor(values);
    for (const [name, field] of this.fields) field.write(values[name], isWhole);
  }

  /** Show a problem: what is wrong with a field at that field, the rest above; go to the first. */
  show(problem) {
    this.clearErrors();
    const rest = [];
    let target = null;
    for (const fault of problem.errors ?? []) {
      const [name, ...inside] = partsOf(fault.pointer);
      const field = this.fields.get(name);
      if (!field) {
        rest.push(fault.detail);
        continue;
      }
      this.groups.find((group) => group.fields.includes(field))?.choose(field);
      field.show(inside.length ? `${inside.join(" › ")}: ${fault.detail}` : fault.detail);
      target ??= field;
    }
    if (rest.length || !target) {
      const texts = rest.length ? rest : [problem.detail || problem.title];
      const place = problem.file ? h("p", { class: "hint" }, `${problem.file}:${problem.line}, node ${problem.node}`) : null;
      fill(this.alert, h("strong", {}, problem.title), texts.map((text) => h("p", {}, text)), place);
      this.alert.hidden = false;
    }
    (target?.control.target ?? this.alert).focus();
    (target?.element ?? this.alert).scrollIntoView({ block: "center" });
  }

  clearErrors() {
    this.alert.hidden = true;
    this.fields.forEach((field) => field.show(""));
  }

  /** Give a pasted file to the first empty field that takes it; say whether there was one. */
  take(file) {
    const takers = [...this.fields.values()].filter((field) => field.control.accepts?.(file) && !field.isOff);
    const taker = takers.find((field) => field.control.isEmpty) ?? takers[0];
    taker?.control.take(file);
    return Boolean(taker);
  }
}

class Field {
  constructor(param, listModels) {
    const id = `param-${param.name}`;
    this.param = param;
    this.control = controlOf(param, id, listModels);
    this.isOff = false;
    this.error = h("p", { class: "error", id: `${id}-error`, hidden: true });
    const hint = param.description ? h("p", { class: "hint", id: `${id}-hint` }, param.description) : null;
    const mark = param.isRequired ? h("span", { class: "mark" }, "required") : null;
    this.use = param.isOptional && !param.group ? h("input", { type: "checkbox", role: "switch", class: "switch", "aria-label": `Send ${param.label}`, onchange: () => this.turn(this.use.checked, true) }) : null;
    this.body = h("div", { class: "field-body" }, this.control.parts);
    this.element = h(
      "div",
      { class: `field kind-${param.kind}${this.control.isNarrow && !param.isOptional ? " narrow" : ""}`, "data-param": param.name },
      h("div", { class: "field-head" }, h("label", { for: id }, param.label), mark, this.use, this.control.head),
      this.body,
      hint,
      this.error,
    );
    const describe = () => this.control.target.setAttribute("aria-describedby", [hint?.id, this.error.id].filter(Boolean).join(" "));
    describe();
    this.control.found?.then(describe);
    this.element.addEventListener("input", () => this.show(""));
    this.element.addEventListener("settled", () => this.show(""));
    this.element.addEventListener("refused", (event) => this.show(event.detail));
  }

  /** Say whether the param is sent at all. */
  turn(isOn, byHand = false) {
    this.isOff = !isOn;
    this.element.classList.toggle("is-off", this.isOff);
    if (this.use) this.use.checked = isOn;
    for (const input of [this.control.target, ...this.body.querySelectorAll("input, select, textarea, button")]) input.disabled = this.isOff;
    if (isOn && byHand) this.control.target.focus();
  }

  read() {
    return this.isOff ? undefined : this.control.read();
  }

  /** Set the field; without a value to what it is at first, or off when the values are all. */
  write(value, isWhole) {
    const { param } = this;
    const isExampled = !isWhole && param.isRequired;
    this.control.write(value ?? (isExampled ? param.example : undefined));
    if (this.use) this.turn(value !== undefined);
  }

  show(text) {
    this.error.textContent = text;
    this.error.hidden = text === "";
    this.element.classList.toggle("is-wrong", text !== "");
    if (text) this.control.target.setAttribute("aria-invalid", "true");
    else this.control.target.removeAttribute("aria-invalid");
  }
}

/** Give those narrow fields the whole width that have no other beside them. */
function widenLast(elements) {
  let isAlone = false;
  elements.forEach((element, number) => {
    const isNarrow = element.classList.contains("narrow");
    isAlone = isNarrow && !isAlone;
    if (isAlone && !elements[number + 1]?.classList.contains("narrow")) element.classList.remove("narrow");
  });
}

/** Params of which exactly one is given: a choice between their fields. */
class Group {
  constructor(fields) {
    this.fields = fields;
    const name = `group-${fields.map((field) => field.param.name).join("-")}`;
    this.choices = fields.map((field) => h("input", { type: "radio", name, value: field.param.name, onchange: () => this.choose(field) }));
    this.element = h(
      "fieldset",
      { class: "group" },
      h("legend", {}, "One of"),
      h("div", { class: "segments" }, fields.map((field, number) => h("label", {}, this.choices[number], h("span", {}, field.param.label)))),
      fields.map((field) => field.element),
    );
  }

  choose(chosen) {
    this.fields.forEach((field, number) => {
      this.choices[number].checked = field === chosen;
      field.element.hidden = field !== chosen;
      field.turn(field === chosen);
    });
  }

  /** Choose the field that has a value; else one with a list to choose from, else the first. */
  chooseFor(values) {
    this.choose(
      this.fields.find((field) => values[field.param.name] !== undefined) ??
        this.fields.find((field) => field.param.kind === "model") ??
        this.fields[0],
    );
  }
}

/** Return the parts of a JSON pointer, which may be in a fragment (RFC 6901, section 6). */
function partsOf(pointer = "") {
  return pointer.replace(/^#?\/?/, "").split("/").map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
}
