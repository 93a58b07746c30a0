// The page: a workflow is picked, its form filled, a run watched and what it made shown and kept.

import { ProblemError, address, ask, askBlob, askJson, ended, events, forgetKey, isKey, key, onKeyWanted, setKey } from "./api.js";
import { ICONS, announce, byId, fill, h, icon } from "./dom.js";
import { Form } from "./form.js";
import { History, thumbnailOf } from "./history.js";
import { Lights, follow, paint, showPicture } from "./picture.js";
import { LANGUAGES, codeOf, formOf, isForm } from "./snippets.js";
import { Stage, kindOf } from "./stage.js";

const stage = new Stage(byId("stage"));
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let workflows = [];
let current = null; // the workflow whose form is shown
let form = null;
let history = null;
let running = null; // {job, workflow, isCancelled} while a run is watched; its job once that is known
let lit = null; // {workflow, lights} of the run that is shown
let language = LANGUAGES[0];
const forms = new Map(); // by workflow, with what was typed in them
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

function choose(workflow) {
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
  byId("workflow-off").hidden = workflow.enabled;
  form = formFor(workflow);
  form.showIn(byId("fields"));
  showActions();
  if (!running) {
    lit = null;
    stage.showEmpty(workflow, sizes());
  }
  showGraph(workflow).catch(fail);
}

function formFor(workflow) {
  if (!forms.has(workflow.name)) forms.set(workflow.name, new Form(byId("alert"), workflow, listModels));
  return forms.get(workflow.name);
}

async function showGraph(workflow) {
  const panel = byId("graph");
  panel.hidden = Boolean(workflow.graph);
  byId("graph-picture").replaceChildren();
  showLights();
  if (panel.hidden) return;
  const text = await (await ask(`workflows/${workflow.name}/graph`)).text();
  // Another may have been chosen meanwhile.
  if (current !== workflow) return;
  showPicture(byId("graph-picture"), text);
  showLights();
}

/** Light the graph that is shown, if the run that is shown is one of it. */
function showLights() {
  const lights = lit?.workflow === current.name ? lit.lights : null;
  byId("graph-legend").hidden = !lights?.isAny;
  paint(byId("graph-picture"), lights);
  follow(byId("graph-picture"));
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
  if (workflow && workflow !== current) choose(workflow);
}

// Running

async function run() {
  if (running || !current?.enabled) return;
  const values = form.read();
  if (values === null) return;
  const [workflow, asked] = [current, form];
  const begun = begin(workflow.name, null);
  const told = stage.showRun(workflow.name, sizes(values));
  goTo(byId("stage"));
  let started;
  try {
    await readable(values);
    const { job } = await askJson(workflow.route, { method: "POST", ...bodyOf(values) });
    begun.job = job;
    started = { job, workflow: workflow.name, values, when: Date.now() };
  } catch (error) {
    end();
    stage.showEmpty(current, sizes());
    if (!(error instanceof ProblemError)) throw error;
    // Another form may be shown by now, which has other fields.
    const { problem } = error;
    form.show(form === asked ? problem : { ...problem, errors: [], detail: `${workflow.name}: ${problem.detail}` });
    announce(problem.detail);
    return;
  }
  await history.put(started);
  if (begun.isCancelled) await withdraw(begun);
  await watch(started, told);
}

function begin(workflow, job) {
  running = { job, workflow, isCancelled: false };
  lit = { workflow, lights: new Lights() };
  showActions();
  showLights();
  return running;
}

function end() {
  running = null;
  showActions();
  showHistory();
}

/** Watch a run to its end, show what it made or why it made nothing, and keep it. */
async function watch(started, told) {
  const { lights } = lit;
  try {
    let doc = null;
    for await (const { event, data } of events(started.job)) {
      if (event === "started" || event === "unwatched") lights.begin();
      if (event === "cached") lights.keep(data.nodes);
      if (event === "node") lights.run(data.node);
      if (["started", "unwatched", "cached", "node"].includes(event)) showLights();
      if (event === "end") doc = data;
      else told[event]?.(data);
    }
    lights.end(doc);
    showLights();
    showEnd(await keep(started, doc));
    if (doc.status === "succeeded") announce(`Done in ${doc.seconds} seconds`);
  } catch (error) {
    lights.end({ status: "lost" });
    showLights();
    if (!isForgotten(error)) {
      const problem = error.problem ?? { title: "This page has failed", detail: String(error) };
      stage.showFailure(problem, [againButton(started), reuseButton(started)]);
      announce(problem.title);
      if (!error.problem) throw error;
      return;
    }
    showEnd(await keep(started, FORGOTTEN));
  } finally {
    end();
  }
  catchUp().catch(fail);
}

/** Keep a run that has ended, with what it made. */
async function keep(started, doc) {
  const run = { ...started, doc: { ...doc, outputs: undefined } };
  if (doc.status === "succeeded") {
    run.outputs = await Promise.all(doc.outputs.map((output, number) => fetched(started.job, output, number)));
    run.thumbnail = await thumbnailOf(run.outputs[0]);
  }
  await history.put(run);
  return run;
}

const FORGOTTEN = {
  status: "failed",
  problem: { title: "The run is gone", detail: "The service does not know it any more: it has been started anew, it ended long ago, or it was begun with another key." },
};
const isForgotten = (error) => error.problem?.code === "unknown-job";

/** Make sure that files can still be read: one may have been moved, or be a folder. */
async function readable(values) {
  const files = Object.entries(values).flatMap(([name, value]) => [value, ...(value instanceof Object ? Object.values(value) : [])].filter((one) => one instanceof Blob).map((file) => [name, file]));
  const errors = [];
  for (const [name, file] of files) {
    await file.slice(0, 1).arrayBuffer().catch(() => errors.push({ pointer: `#/${name}`, detail: `${file.name} cannot be read; choose it again` }));
  }
  if (errors.length) throw new ProblemError({ code: "unreadable", title: "A file cannot be read", detail: errors[0].detail, errors });
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
  if (!running || running.isCancelled) return;
  running.isCancelled = true;
  showActions();
  // The service may have begun what it has not answered yet: that is ended once its job is known.
  if (running.job) await withdraw(running);
}

/** End a job; the events tell of its end. */
async function withdraw(run) {
  try {
    await ask(`jobs/${run.job}`, { method: "DELETE" });
  } catch (error) {
    if (error.problem?.code === "job-ended") return;
    run.isCancelled = false;
    showActions();
    fail(error);
  }
}

function showEnd(run) {
  const actions = [reuseButton(run), removeButton(run)];
  if (run.doc.status === "succeeded") {
    stage.showResult(run, actions);
    return;
  }
  const problem = { title: "Cancelled", ...(run.doc.problem ?? { code: "job-cancelled" }) };
  stage.showFailure(problem, actions, run.doc);
  announce(problem.title);
}

function againButton(run) {
  return h("button", { type: "button", class: "secondary small", onclick: () => goOn(run).catch(fail) }, "Look again");
}

function removeButton(run) {
  const remove = async () => {
    // Another run may be begun before the browser has taken it out.
    const removing = history.remove(run.job);
    lit = null;
    showLights();
    stage.showEmpty(current, sizes());
    goTo(byId("stage"), true);
    announce("Removed from the history");
    await removing;
    showHistory();
  };
  return h("button", { type: "button", class: "quiet small", onclick: () => remove().catch(fail) }, "Remove");
}

function reuseButton(run) {
  return h("button", { type: "button", class: "secondary small", onclick: () => reuse(run) }, icon(ICONS.reuse), "Use these settings");
}

function reuse(run) {
  const workflow = workflows.find((one) => one.name === run.workflow);
  if (!workflow) {
    announce(`There is no workflow ${run.workflow} any more`);
    return;
  }
  const seed = workflow.seed && run.doc?.seed != null ? { [workflow.seed]: run.doc.seed } : {};
  if (workflow !== current) {
    goToWorkflow(workflow);
    if (run.doc) showEnd(run);
  }
  form.write({ ...run.values, ...seed }, { isWhole: true });
  goTo(byId("composer"), true);
  announce("The settings are in the form");
}

function goToWorkflow(workflow) {
  choose(workflow);
  location.hash = workflow.name;
}

/** Go on with a run that was under way when it was seen last. */
async function goOn(started) {
  if (running) {
    announce("A run is under way");
    return;
  }
  begin(started.workflow, started.job);
  await watch(started, stage.showRun(started.workflow, sizes(started.values), started.when));
}

/** Go on with the newest run that was under way when the page was closed. */
async function resume() {
  const newest = history.runs.find((run) => !run.doc);
  if (!newest) return;
  const workflow = workflows.find((one) => one.name === newest.workflow);
  if (workflow && workflow !== current) goToWorkflow(workflow);
  if (workflow) form.write(newest.values, { isWhole: true });
  await goOn(newest);
}

const waitedFor = new Set();

/** Wait for those runs that nobody watches, as another tab may have begun them, and keep them. */
async function catchUp() {
  const left = history.runs.filter((run) => !run.doc && run.job !== running?.job && !waitedFor.has(run.job));
  await Promise.all(left.map(async (started) => {
    waitedFor.add(started.job);
    try {
      await keep(started, await ended(started.job));
    } catch (error) {
      if (isForgotten(error)) await keep(started, FORGOTTEN);
      // Else it stays in the history as one that is under way, to be looked for again.
      else if (!(error instanceof ProblemError)) throw error;
    } finally {
      waitedFor.delete(started.job);
    }
    showHistory();
  }));
}

// What is shown around it

function showActions() {
  byId("run").disabled = Boolean(running) || !current?.enabled;
  byId("run").firstChild.data = running ? "Running…" : "Run";
  byId("cancel").hidden = !running;
  byId("cancel").disabled = Boolean(running?.isCancelled);
  byId("cancel").firstChild.data = running?.isCancelled ? "Cancelling…" : "Cancel";
}

function showHistory() {
  const runs = history.runs.filter((run) => run.job !== running?.job);
  for (const [thumbnail, url] of thumbnails) {
    if (runs.some((run) => run.thumbnail === thumbnail)) continue;
    URL.revokeObjectURL(url);
    thumbnails.delete(thumbnail);
  }
  fill(byId("runs"), runs.map((run) => h("li", {}, historyButton(run))));
  byId("clear-history").hidden = !runs.some((run) => run.doc);
  byId("history-note").hidden = runs.length > 0 && history.isKept;
  if (!history.isKept) byId("history-note").textContent = "This browser keeps no history; it goes with this page.";
}

async function clearHistory() {
  const count = history.runs.filter((run) => run.doc).length;
  if (!confirm(`Remove ${count === 1 ? "the run" : `all ${count} runs`} from the history of this browser?`)) return;
  await history.clear();
  showHistory();
}

const thumbnails = new Map(); // the addresses of small pictures

function historyButton(run) {
  const { thumbnail, doc, workflow, values, when } = run;
  if (thumbnail && !thumbnails.has(thumbnail)) thumbnails.set(thumbnail, URL.createObjectURL(thumbnail));
  const status = doc?.status ?? "under way when last seen";
  const [look, name] = doc
    ? { succeeded: ["", kindOf(run.outputs?.[0].media_type)], cancelled: [" is-cancelled", "cancelled"] }[doc.status] ?? [" is-bad", "warning"]
    : ["", "reuse"];
  const prompt = String(values.prompt ?? "");
  const about = prompt.length > 120 ? `${prompt.slice(0, 120)}…` : prompt;
  const words = [workflow, status === "succeeded" ? null : status, about, new Date(when).toLocaleString()].filter(Boolean).join(", ");
  const show = () => {
    if (running) {
      announce("A run is under way");
      return;
    }
    if (!doc) {
      goOn(run).catch(fail);
    } else {
      lit = null;
      showLights();
      showEnd(run);
    }
    goTo(byId("stage"));
  };
  return h(
    "button",
    { type: "button", class: `run${look}`, title: words, "aria-label": words, onclick: show },
    thumbnail ? h("img", { src: thumbnails.get(thumbnail), alt: "" }) : icon(ICONS[name] ?? ICONS.text),
  );
}

function showCode() {
  const values = form?.read() ?? null;
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
  try {
    await navigator.clipboard.writeText(byId("code").textContent);
  } catch {
    // It is for pages from this machine or over https, and may be forbidden.
    getSelection().selectAllChildren(byId("code"));
    byId("code-note").textContent = "This browser does not let a page copy: the code is selected, copy it by hand.";
    announce(byId("code-note").textContent);
    return;
  }
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
    byId("forget-key").hidden = key() === null;
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "forget") forgetKey();
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
  else if (error instanceof ProblemError) failToStart(error.problem);
  else throw error;
}

function failToStart(problem) {
  byId("workflow-name").textContent = "Nothing to choose from";
  const button = (words, onclick) => h("button", { type: "button", class: "secondary small", onclick }, words);
  if (problem.code === "unauthorized") {
    stage.showFailure({ ...problem, detail: "Ask whoever runs this service for one." }, [button("Enter a key", changeKey)]);
  } else {
    stage.showFailure(problem, [button("Try again", () => location.reload())]);
  }
}

async function changeKey() {
  // Without one, there is nothing on the page yet.
  if ((await askForKey(false)) && !current) location.reload();
}

async function start() {
  onKeyWanted(askForKey);
  byId("change-key").hidden = key() === null;
  byId("change-key").addEventListener("click", changeKey);
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    run().catch(fail);
  });
  byId("cancel").addEventListener("click", () => cancel().catch(fail));
  byId("reset").addEventListener("click", () => form?.write({}));
  byId("show-code").addEventListener("click", showCode);
  byId("copy-code").addEventListener("click", copyCode);
  byId("clear-history").addEventListener("click", () => clearHistory().catch(fail));
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

  [history, workflows] = await Promise.all([History.open(address("").pathname), askJson("workflows"), showAbout()]);
  showWorkflows();
  showHistory();
  byId("picker").disabled = workflows.length === 0;
  followHash();
  const first = workflows.find((workflow) => workflow.enabled) ?? workflows[0];
  if (!current && first) choose(first);
  if (current) await resume();
  else stage.showFailure({ title: "There are no workflows", detail: "This service has none to run." }, []);
}

start().catch(fail);
