// Asking the service: with the caller's key, relative to this page, and never anyone else.

const KEY = "api-key";
const BASE = new URL(".", document.baseURI);
// The service is heard of every 15 seconds, even when nothing happens.
const SILENCE = 45_000;
const MOST_TRIES = 8;
// A stream that was open this long was no failure, though nothing was told on it.
const HEALTHY = 10_000;
// For how long the service may hold back what a job is until that ends, in seconds.
const HOLD = 20;
const NO_ANSWER = { code: "no-answer", title: "The service does not answer", detail: "The service does not answer. Is it running?" };

/** What the service says went wrong (RFC 9457), or what kept it from saying anything. */
export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail || problem.title);
    this.problem = problem;
  }
}

export const address = (path) => new URL(path.replace(/^\//, ""), BASE);
export const key = () => kept.getItem(KEY);
export const setKey = (text) => kept.setItem(KEY, text);
export const forgetKey = () => kept.removeItem(KEY);
/** Say whether a key can be sent at all: a header holds no other characters. */
export const isKey = (text) => /^[\x20-\x7e]+$/.test(text);

const kept = storage();
let askForKey = async () => false;

/** Say who is asked when the service wants a key; the answer is whether there is one now. */
export function onKeyWanted(ask) {
  askForKey = ask;
}

/**
 * Ask the service, and again when it wanted a key and there is one now.
 *
 * Throws a ProblemError when the answer is one, or when there is none; that is so, too, when it has
 * not begun within `patience` milliseconds.
 */
export async function ask(path, { headers = {}, patience = null, ...options } = {}) {
  for (;;) {
    const given = key();
    const sent = given ? { ...headers, Authorization: `Bearer ${given}` } : headers;
    const waiting = new AbortController();
    const timer = patience && setTimeout(() => waiting.abort(), patience);
    let reply;
    try {
      reply = await fetch(address(path), { ...options, headers: sent, signal: waiting.signal });
    } catch {
      throw new ProblemError(NO_ANSWER);
    } finally {
      clearTimeout(timer);
    }
    if (reply.ok) return reply;
    const problem = await problemOf(reply);
    // Somebody may have given a key while this was under way.
    const isNew = key() !== given;
    if (problem.code !== "unauthorized" || !(isNew || (await askForKey(Boolean(given))))) {
      throw new ProblemError(problem);
    }
  }
}

/** Return the bytes of an answer; the connection may be lost while they come. */
export async function askBlob(path) {
  const reply = await ask(path);
  try {
    return await reply.blob();
  } catch {
    throw new ProblemError(NO_ANSWER);
  }
}

export const askJson = async (path, options) => (await ask(path, options)).json();

/**
 * Yield the events of a job, `{event, data}`, until its end.
 *
 * A connection that is lost is made again, and goes on after the last event that was heard. Three events
 * are this page's own: `lost` when there is no connection, `found` when there is one again, `unwatched`
 * when too many listen already. Then, and where it is not watched in the first place, the job is asked
 * for now and then, and only its end is told.
 */
export async function* events(job, isWatched = true) {
  let last = "";
  let isLost = false;
  for (let tries = 0; ; ) {
    let began = Infinity;
    try {
      const reply = await (isWatched ? listen(job, last) : ask(`jobs/${job}`, { headers: { Prefer: `wait=${HOLD}` }, patience: SILENCE }));
      began = performance.now();
      if (isLost) yield { event: "found", data: {} };
      isLost = false;
      if (!isWatched) {
        const doc = await reply.json();
        if (doc.status !== "queued" && doc.status !== "running") {
          yield { event: "end", data: doc };
          return;
        }
        // With too many listeners it is answered at once, whatever it is asked to wait.
        await pause(1000 * Math.min(Math.max(reply.headers.get("Retry-After") || 1, 1), HOLD));
        tries = 0;
        continue;
      }
      if (reply.status === 204) {
        // All that there was has been heard, but not that it was the end.
        yield { event: "end", data: await askJson(`jobs/${job}`) };
        return;
      }
      for await (const event of parsed(reply.body)) {
        tries = 0;
        last = event.id || last;
        yield { event: event.event, data: JSON.parse(event.data) };
        if (event.event === "end") return;
      }
    } catch (error) {
      if (isWatched && error.problem?.code === "too-many-listeners") {
        // The run goes on, whether or not there is room to listen to it.
        isWatched = isLost = false;
        yield { event: "unwatched", data: {} };
        continue;
      }
      if (!mayPass(error)) throw error;
      isLost = true;
    }
    tries = performance.now() - began > HEALTHY ? 0 : tries + 1;
    if (tries > MOST_TRIES) {
      throw new ProblemError({ ...NO_ANSWER, detail: "The connection to the service is lost. The run may go on there." });
    }
    if (isLost) yield { event: "lost", data: {} };
    await pause(Math.min(250 * 2 ** tries, 8000));
  }
}

/** Return a job once it has ended. */
export async function ended(job) {
  for await (const { event, data } of events(job, false)) {
    if (event === "end") return data;
  }
}

function listen(job, last) {
  const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
  return ask(`jobs/${job}/events?previews=true`, { headers, patience: SILENCE });
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

class LostError extends Error {}

/** Say whether it may help to ask again: nothing was heard, or it is too much or out of order now. */
function mayPass(error) {
  const { code, status } = error.problem ?? {};
  return error instanceof LostError || error instanceof TypeError || code === "no-answer" || status === 429 || status >= 500;
}

/** Yield the events of a stream. Source: the HTML standard, section 9.2.6. */
async function* parsed(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = {};
  try {
    for (;;) {
      const { done, value } = await withinTime(reader.read());
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data !== undefined) yield event;
          event = {};
        } else if (!line.startsWith(":")) {
          const [, name, text = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
          event[name] = name === "data" && event.data !== undefined ? `${event.data}\n${text}` : text;
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function withinTime(reading) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new LostError("nothing was heard")), SILENCE);
  });
  return Promise.race([reading, late]).finally(() => clearTimeout(timer));
}

async function problemOf(reply) {
  const { status } = reply;
  const isProblem = reply.headers.get("content-type")?.startsWith("application/problem+json");
  const fallback =
    status === 401
      ? { code: "refused", status, title: "Something in front of the service refuses", detail: "It answers with 401, and this page has nothing to show it: no API key helps. With auth: proxy that is Modal, which wants its proxy auth tokens with every request." }
      : { code: "bad-answer", status, title: `The answer is ${status}`, detail: `The service answers with ${status}.` };
  return isProblem ? reply.json().catch(() => fallback) : fallback;
}

/** Return where the key is kept: for the session, else, where the browser refuses, with this page. */
function storage() {
  try {
    sessionStorage.getItem(KEY);
    return sessionStorage;
  } catch {
    const values = new Map();
    return { getItem: (name) => values.get(name) ?? null, setItem: (name, value) => values.set(name, value), removeItem: (name) => values.delete(name) };
  }
}
