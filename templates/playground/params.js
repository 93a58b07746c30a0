// From the JSON Schema of a request to what its form shows.

const WORDS = { cfg: "CFG", fps: "FPS", gpu: "GPU", id: "ID", lora: "LoRA", url: "URL", vae: "VAE" };
const LONG_TEXT = /prompt|text|caption|description|lyrics/;
// A slider with more places than this is no help.
const MOST_PLACES = 20_000;

/** What is wrong with what a field holds, before the service is asked. */
export class FieldError extends Error {}

/**
 * Return the params of a workflow, as /workflows has it, in its order.
 *
 * `kind` is one of text, longtext, integer, number, boolean, choice, seed, image, video, audio, model,
 * graph and files. An `optional` one may be left unset. `group` lists those of which exactly one is
 * to be given.
 */
export function paramsOf(workflow) {
  const { properties = {}, required = [], allOf = [] } = workflow.params;
  const groups = allOf.map((all) => all.oneOf?.map((one) => one.required[0]) ?? []);
  return Object.entries(properties).map(([name, schema]) => {
    const isOptional = schema.anyOf?.some((one) => one.type === "null") ?? false;
    const described = { ...schema, ...schema.anyOf?.find((one) => one.type !== "null") };
    const [start, step] = described["x-step"] ?? [0, described.multipleOf ?? 1];
    return {
      name,
      label: labelOf(name),
      kind: kindOf(name, described, workflow),
      description: described.description ?? "",
      isRequired: required.includes(name),
      isOptional,
      group: groups.find((group) => group.includes(name)) ?? null,
      default: isOptional ? undefined : described.default,
      example: described.examples?.[0],
      options: described.enum ?? (described.const === undefined ? null : [described.const]),
      folder: described["x-folder"],
      minimum: first(described.minimum, start, step),
      maximum: last(described.maximum, start, step),
      step,
      minLength: described.minLength,
      maxLength: described.maxLength,
      pattern: described.pattern,
    };
  });
}

/** Return the bounds and step of a param's slider, null where one would be no help. */
export function sliderOf(param) {
  const { minimum, maximum } = param;
  if (minimum === undefined || maximum === undefined || minimum >= maximum) return null;
  const range = maximum - minimum;
  let step = param.step;
  if (param.kind === "number") step = range <= 2 ? 0.01 : range <= 20 ? 0.05 : range <= 200 ? 0.1 : 1;
  return range / step > MOST_PLACES ? null : { minimum, maximum, step };
}

function kindOf(name, schema, workflow) {
  if (name === workflow.seed) return "seed";
  if (name === workflow.graph) return "graph";
  if (workflow.graph && name === "files") return "files";
  if (schema["x-media"]) return schema["x-media"];
  if (schema["x-folder"]) return "model";
  if (schema.enum || schema.const !== undefined) return "choice";
  if (schema.type === "integer" || schema.type === "number" || schema.type === "boolean") return schema.type;
  return LONG_TEXT.test(name) && !schema.pattern ? "longtext" : "text";
}

function labelOf(name) {
  const words = name.split("_").filter(Boolean).map((word) => WORDS[word] ?? word);
  const text = words.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

// The first and the last number on the step, which the bounds themselves need not be.
const first = (minimum, start, step) =>
  minimum === undefined || step === 1 ? minimum : start + Math.ceil((minimum - start) / step) * step;
const last = (maximum, start, step) =>
  maximum === undefined || step === 1 ? maximum : start + Math.floor((maximum - start) / step) * step;
