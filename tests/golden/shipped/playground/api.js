// Asking the service: with the caller's key, relative to this page, and never anyone else.

const KEY = "api-key";
const BASE = new URL(".", document.baseURI);
// The service is heard of every 15 seconds, even when nothing happens.
const SILENCE = 45_000;
const MOST_TRIES = 8;
const NO_ANSWER = { code: "no-answer", title: "The service does not answer", detail: "The service does not answer. Is it running?" };

/** What the service says went wrong (RFC 9457), or what kept it from saying anything. */
export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail || problem.title);
    this.problem = problem;
  }
}

export const address = (path) => new URL(path.replace(/^\//, ""), BASE);
export const key = () => sessionStorage.getItem(KEY);
export const setKey = (text) => sessionStorage.setItem(KEY, text);
/** Say whether a key can be sent at all: a header holds no other characters. */
export const isKey = (text) => /^[\x20-\x7e]+$/.test(text);

let askForKey = async () => false;

/** Say who is asked when the service wants a key; the answer is whether there is one now. */
export function onKeyWanted(ask) {
  askForKey = ask;
}

/**
 * Ask the service, and again when it wanted a key and there is one now.
 *
 * Throws a ProblemError when the answer is one, or when there is none.
 */
export async function ask(path, { headers = {}, ...options } = {}) {
  for (;;) {
    const given = key();
    const sent = given ? { ...headers, Authorization: `Bearer ${given}` } : headers;
    let reply;
    try {
      reply = await fetch(address(path), { ...options, headers: sent });
    } catch {
      throw new ProblemError(NO_ANSWER);
    }
    if (reply.ok) return reply;
    const problem = await problemOf(reply);
    // Somebody may have given a key while this was under way.
    const isNew = key() !== given;
    if (reply.status !== 401 || !(isNew || (await askForKey(Boolean(given))))) {
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
 * A connection that is lost is made again, and goes on after the last event that was heard.
 */
export async function* events(job) {
  let last = "";
  for (let tries = 0; ; ) {
    try {
      const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
      const reply = await ask(`jobs/${job}/events?previews=true`, { headers });
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
      const isLost = error instanceof LostError || error.problem?.code === "no-answer" || error instanceof TypeError;
      if (!isLost) throw error;
    }
    tries += 1;
    if (tries > MOST_TRIES) {
      throw new ProblemError({ code: "no-answer", title: "The service does not answer", detail: "The connection to the service was lost. The run may go on." });
    }
    await new Promise((done) => setTimeout(done, Math.min(250 * 2 ** tries, 8000)));
  }
}

class LostError extends Error {}

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
  const isProblem = reply.headers.get("content-type")?.startsWith("application/problem+json");
  const fallback = { code: "bad-answer", title: `The answer is ${reply.status}`, status: reply.status, detail: `The service answers with ${reply.status}.` };
  return isProblem ? reply.json().catch(() => fallback) : fallback;
}
