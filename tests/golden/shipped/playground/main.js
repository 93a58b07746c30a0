// The page: a workflow is picked, its form filled, a run watched and what it made shown and kept.

import { ProblemError, address, ask, askBlob, askJson, events, isKey, key, onKeyWanted, setKey } from "./api.js";
import { ICONS, announce, byId, fill, h, icon } from "./dom.js";
import { Form } from "./form.js";
import { History, thumbnailOf } from "./history.js";
import { dim, light, showPicture } from "./picture.js";
import { LANGUAGES, codeOf, formOf, isForm } from "./snippets.js";
import { Stage, kindOf } from "./stage.js";

const stage = new Stage(byId("stage"));
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let workflows = [];
let current = null; // the workflow whose form is shown
let form = null;
let history = null;
let running = null; // {job, isCancelled} while a run is watched; its job once that is known
let language = LANGUAGES[0];
const drafts = new Map(); // what was typed, by workflow
const listings = new Map(); // model files, by folder

// Choosing a workflow

function showWorkflows() {
  const items = workflows.map((workflow) =>
    h(
      "a",
      { href: `#${workflow.name}`, class: "workflow", onclick: () => byId("workflows").hidePopover() },
      h("span", { class: "picker-name" }, workflow.name, workflow.enabled ? null : h("span", { class: "off" }, "off")),
      h("span", { class: "picker-summary" }, workflow.summary),
    ),
  );
  fill(byId("workflows"), items);
}

async function choose(workflow) {
  if (form) drafts.set(current.name, form.peek().values);
  current = workflow;
  byId("workflow-name").textContent = workflow.name;
  byId("workflow-summary").textContent = workflow.summary;
  document.title = `${workflow.name} · ${byId("app-name").textContent}`;
  for (const link of byId("workflows").children) {
    if (link.hash === `#${workflow.name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("workflow-description").textContent = workflow.description;
  byId("workflow-description").hidden = !workflow.description;
  form = new Form(byId("fields"), byId("alert"), workflow, listModels);
  const draft = drafts.get(workflow.name);
  if (draft) form.write(draft, { isWhole: true });
  showActions();
  if (!running) stage.showEmpty(workflow, sizes());
  byId("workflow-off").hidden = workflow.enabled;
  await showGraph(workflow);
}

async function showGraph(workflow) {
  const panel = byId("graph");
  panel.hidden = Boolean(workflow.graph);
  byId("graph-picture").replaceChildren();
  if (panel.hidden) return;
  const text = await (await ask(`workflows/${workflow.name}/graph`)).text();
  // Another may have been chosen meanwhile.
  if (current === workflow) showPicture(byId("graph-picture"), text);
}

function listModels(folder) {
  if (!listings.has(folder)) {
    const listing = askJson(`models/${encodeURIComponent(folder)}`).then(({ files }) => files);
    // It may be there the next time; until then the file is typed.
    listings.set(folder, listing.catch(() => (listings.delete(folder), null)));
  }
  return listings.get(folder);
}

function followHash() {
  // Names are plain; a hash that is none, however it is written, chooses nothing.
  const workflow = workflows.find((one) => `#${one.name}` === location.hash);
  if (workflow && workflow !== current) choose(workflow).catch(fail);
}

// Running

async function run() {
  if (running || !current.enabled) return;
  const values = form.read();
  if (values === null) return;
  const workflow = current;
  running = { job: null, isCancelled: false };
  showActions();
  const told = stage.showRun(sizes(values));
  goTo(byId("stage"));
  dim(byId("graph-picture"));
  try {
    const job = await askJson(workflow.route, { method: "POST", ...bodyOf(values) });
    running.job = job.job;
    if (running.isCancelled) await end(job.job);
    const started = { job: job.job, workflow: workflow.name, values, when: Date.now() };
    await history.put(started);
    await watch(started, told);
  } catch (error) {
    running = null;
    if (!(error instanceof ProblemError)) throw error;
    stage.showEmpty(current, sizes());
    // Another form may be shown by now, which has other fields.
    const { problem } = error;
    form.show(current === workflow ? problem : { ...problem, errors: [], detail: `${workflow.name}: ${problem.detail}` });
    announce(problem.detail);
  } finally {
    running = null;
    showActions();
    showHistory();
  }
}

/** Watch a run to its end, show what it made, and keep it. */
async function watch(started, told) {
  const picture = byId("graph-picture");
  let doc = null;
  for await (const { event, data } of events(started.job)) {
    if (event === "node" && current.name === started.workflow) light(picture, data.node);
    if (event === "end") doc = data;
    else told[event]?.(data);
  }
  dim(picture, { keepDone: doc.status === "succeeded" });
  if (doc.status !== "succeeded") {
    await history.put({ ...started, doc });
    showEnd({ ...started, doc });
    return;
  }
  const outputs = await Promise.all(doc.outputs.map((output, number) => fetched(started.job, output, number)));
  const ended = { ...started, doc: { ...doc, outputs: undefined }, outputs, thumbnail: await thumbnailOf(outputs[0]) };
  await history.put(ended);
  showEnd(ended);
  announce(`Done in ${doc.seconds} seconds`);
}

async function fetched(job, { media_type: type, filename, width, height }, number) {
  const blob = await askBlob(`jobs/${job}/outputs/${number}`);
  const text = kindOf(type) === "text" ? await blob.text() : undefined;
  return { media_type: type, filename, width, height, blob, text };
}

function bodyOf(values) {
  const headers = { Prefer: "respond-async", Accept: "application/json" };
  const { type, body } = isForm(values) ? formOf(values) : { type: "application/json", body: JSON.stringify(values) };
  return { headers: { ...headers, "Content-Type": type }, body };
}

async function cancel() {
  byId("cancel").disabled = true;
  // The service may have begun what it has not answered yet: it is ended once its job is known.
  if (!running.job) running.isCancelled = true;
  else await end(running.job);
}

/** End a job; the events tell of its end. */
async function end(job) {
  try {
    await ask(`jobs/${job}`, { method: "DELETE" });
  } catch (error) {
    if (error.problem?.code === "job-ended") return;
    byId("cancel").disabled = false;
    fail(error);
  }
}

function showEnd(run) {
  if (run.doc.status !== "succeeded") return showProblem(run.doc.problem ?? { code: "job-cancelled" }, run);
  stage.showResult(run, [reuseButton(run)]);
}

function showProblem(problem, run = null) {
  const title = problem.title ?? "Cancelled";
  stage.showFailure({ ...problem, title }, run ? [reuseButton(run)] : []);
  announce(title);
}

function reuseButton(run) {
  return h("button", { type: "button", class: "secondary small", onclick: () => reuse(run) }, icon(ICONS.reuse), "Use these settings");
}

async function reuse(run) {
  const workflow = workflows.find((one) => one.name === run.workflow);
  if (!workflow) return announce(`There is no workflow ${run.workflow} any more`);
  const seed = workflow.seed && run.doc?.seed != null ? { [workflow.seed]: run.doc.seed } : {};
  const values = { ...run.values, ...seed };
  if (workflow !== current) {
    drafts.set(workflow.name, values);
    location.hash = workflow.name;
    await choose(workflow);
    showEnd(run);
  }
  form.write(values, { isWhole: true });
  goTo(byId("composer"), true);
  announce("The settings are in the form");
}

/** Go on with a run that was under way when the page was closed. */
async function resume() {
  const started = history.runs.find((one) => !one.doc);
  const workflow = workflows.find((one) => one.name === started?.workflow);
  if (!started) return;
  try {
    if (!workflow) return await history.remove(started.job);
    running = { job: started.job, isCancelled: false };
    if (workflow !== current) {
      location.hash = workflow.name;
      await choose(workflow);
    }
    form.write(started.values, { isWhole: true });
    showActions();
    await watch(started, stage.showRun(sizes(started.values), started.when));
  } catch (error) {
    stage.showEmpty(current, sizes());
    // Without an answer it may go on, and is asked for again the next time.
    if (error.problem?.code === "no-answer") throw error;
    await history.remove(started.job);
    if (error.problem?.code !== "unknown-job") throw error;
  } finally {
    running = null;
    showActions();
    showHistory();
  }
}

// What is shown around it

function showActions() {
  byId("run").disabled = Boolean(running) || !current?.enabled;
  byId("run").firstChild.data = running ? "Running…" : "Run";
  byId("cancel").hidden = !running;
  byId("cancel").disabled = false;
}

function showHistory() {
  const runs = history.runs.filter((run) => run.doc);
  fill(byId("runs"), runs.map((run) => h("li", {}, historyButton(run))));
  byId("clear-history").hidden = runs.length === 0;
  byId("history-note").hidden = runs.length > 0 && history.isKept;
  if (!history.isKept) byId("history-note").textContent = "This browser keeps no history; it goes with this page.";
}

const thumbnails = new WeakMap();

function historyButton(run) {
  const { thumbnail, doc, workflow, values, when } = run;
  if (thumbnail && !thumbnails.has(thumbnail)) thumbnails.set(thumbnail, URL.createObjectURL(thumbnail));
  const isGood = doc.status === "succeeded";
  const isCancelled = doc.status === "cancelled";
  const name = isGood ? kindOf(run.outputs[0].media_type) : isCancelled ? "cancelled" : "warning";
  const words = [workflow, isGood ? null : doc.status, values.prompt, new Date(when).toLocaleString()].filter(Boolean).join(", ");
  const show = () => {
    if (running) return announce("A run is under way");
    showEnd(run);
    goTo(byId("stage"));
  };
  return h(
    "button",
    { type: "button", class: `run${isGood ? "" : isCancelled ? " is-cancelled" : " is-bad"}`, title: words, "aria-label": words, onclick: show },
    thumbnail ? h("img", { src: thumbnails.get(thumbnail), alt: "" }) : icon(ICONS[name] ?? ICONS.text),
  );
}

function showCode() {
  const values = form.read();
  if (values === null) return;
  fill(
    byId("languages"),
    LANGUAGES.map((name) =>
      h("label", {}, h("input", { type: "radio", name: "language", value: name, checked: name === language, onchange: () => ((language = name), writeCode(values)) }), h("span", {}, name)),
    ),
  );
  writeCode(values);
  byId("code-dialog").showModal();
}

function writeCode(values) {
  const types = { "image/png": "png", "image/webp": "webp", "video/mp4": "mp4", "video/webm": "webm", "audio/flac": "flac" };
  const makes = current.media_types.find((type) => type.endsWith(`/${values.format}`)) ?? current.media_types[0];
  const request = { url: address(current.route).href, values, file: `${current.name}.${types[makes] ?? "bin"}`, hasKey: key() !== null };
  byId("code").textContent = codeOf(language, request);
  const needs = { Python: "Needs httpx.", JavaScript: "For Node.js 20; save it as .mjs." }[language] ?? "";
  byId("code-note").textContent = [needs, request.hasKey ? "The key is in the variable API_KEY." : "", isForm(values) ? "Run it where the files are." : ""].filter(Boolean).join(" ");
}

async function copyCode() {
  await navigator.clipboard.writeText(byId("code").textContent);
  byId("copy-code").textContent = "Copied";
  announce("Copied");
  setTimeout(() => (byId("copy-code").textContent = "Copy"), 1500);
}

async function showAbout() {
  const about = await askJson("health");
  byId("app-name").textContent = about.app;
  const isPreview = about.workers.some((worker) => worker.engine === "preview");
  const engine = about.workers.map((worker) => worker.engine).find(Boolean);
  const shown = byId("engine");
  shown.hidden = !engine;
  shown.classList.toggle("is-preview", isPreview);
  fill(shown, isPreview ? "Preview engine: placeholders, no model runs" : engine);
}

function sizes(values = form.peek().values) {
  return { width: values.width, height: values.height };
}

function goTo(element, withFocus = false) {
  const isNarrow = matchMedia("(max-width: 899px)").matches;
  if (isNarrow) element.scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "start" });
  if (withFocus) element.focus({ preventScroll: true });
}

/** Ask for a key once, however many requests want one. */
let asking = null;
function askForKey(isWrong) {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    byId("key-error").hidden = !isWrong;
    byId("key-error").textContent = isWrong ? "This key is not known here." : "";
    byId("key-input").value = "";
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "ok" ? byId("key-input").value.trim() : "";
      const canBe = given === "" || isKey(given);
      if (given && canBe) setKey(given);
      byId("key-input").value = "";
      byId("change-key").hidden = false;
      asking = null;
      resolve(canBe ? given !== "" : askForKey(true));
    }, { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
  return asking;
}

/** Show what went wrong outside of a run. */
function fail(error) {
  if (error instanceof ProblemError && form) form.show(error.problem);
  else if (error instanceof ProblemError) stage.showFailure(error.problem, [h("button", { type: "button", class: "secondary small", onclick: () => location.reload() }, "Try again")]);
  else throw error;
}

async function start() {
  onKeyWanted(askForKey);
  byId("change-key").hidden = key() === null;
  byId("change-key").addEventListener("click", () => askForKey(false));
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    run().catch(fail);
  });
  byId("cancel").addEventListener("click", () => cancel().catch(fail));
  byId("reset").addEventListener("click", () => form.write({}));
  byId("show-code").addEventListener("click", showCode);
  byId("copy-code").addEventListener("click", copyCode);
  byId("clear-history").addEventListener("click", () => history.clear().then(showHistory));
  byId("fields").addEventListener("change", () => {
    if (byId("stage").querySelector(".is-empty")) stage.showEmpty(current, sizes());
  });
  document.addEventListener("keydown", (event) => {
    const isMeant = event.key === "Enter" && (event.ctrlKey || event.metaKey);
    if (isMeant && !document.querySelector("dialog[open]")) byId("form").requestSubmit();
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    // Word processors and spreadsheets copy a picture of the text beside it.
    const isText = event.target.matches?.("input, textarea") && event.clipboardData.types.includes("text/plain");
    if (file && !isText && form?.take(file)) event.preventDefault();
  });
  // A file that misses its field would be opened in place of this page.
  for (const kind of ["dragover", "drop"]) {
    document.addEventListener(kind, (event) => event.dataTransfer.types.includes("Files") && event.preventDefault());
  }
  addEventListener("hashchange", followHash);

  const about = showAbout();
  history = await History.open(address("").pathname);
  workflows = await askJson("workflows");
  await about;
  showWorkflows();
  showHistory();
  byId("picker").disabled = workflows.length === 0;
  followHash();
  if (!current) await choose(workflows.find((workflow) => workflow.enabled) ?? workflows[0]);
  await resume();
}

start().catch(fail);
