// Past runs, in this browser: settings, outputs and small pictures, the oldest dropped first.

import { kindOf } from "./stage.js";

const MOST_RUNS = 60;
const MOST_BYTES = 200e6;
const THUMBNAIL = 160;

/**
 * Runs by their job: {job, workflow, values, when, doc, outputs, thumbnail, bytes}. A run without `doc`
 * was under way when it was last seen.
 */
export class History {
  #database = null;
  #runs = [];

  /** Open the history of the service at a path, each with its own; `isKept` says if it stays. */
  static async open(path) {
    const history = new History();
    history.isKept = true;
    try {
      history.#database = await promised(opened(`playground ${path}`));
      history.#runs = await promised(history.#store("readonly").getAll());
    } catch {
      // Private windows may have no database; what was run since is shown all the same.
      history.isKept = false;
    }
    history.#runs.sort((a, b) => b.when - a.when);
    return history;
  }

  /** The runs, the newest first. */
  get runs() {
    return this.#runs;
  }

  /** Keep a run, in place of what was kept of it. */
  async put(run) {
    run.bytes = [...(run.outputs ?? []), ...blobsIn(run.values)].reduce((sum, one) => sum + (one.blob ?? one).size, 0);
    this.#runs = [run, ...this.#runs.filter((one) => one.job !== run.job)].sort((a, b) => b.when - a.when);
    let bytes = 0;
    const kept = this.#runs.filter((one, number) => number === 0 || (number < MOST_RUNS && (bytes += one.bytes) < MOST_BYTES));
    const dropped = this.#runs.filter((one) => !kept.includes(one));
    this.#runs = kept;
    await this.#change((store) => {
      store.put(run);
      dropped.forEach((one) => store.delete(one.job));
    });
  }

  async remove(job) {
    this.#runs = this.#runs.filter((one) => one.job !== job);
    await this.#change((store) => store.delete(job));
  }

  /** Forget all runs but those that are under way. */
  async clear() {
    const ended = this.#runs.filter((run) => run.doc);
    this.#runs = this.#runs.filter((run) => !run.doc);
    await this.#change((store) => ended.forEach((run) => store.delete(run.job)));
  }

  async #change(work) {
    if (!this.#database) return;
    try {
      const store = this.#store("readwrite");
      work(store);
      await new Promise((resolve, reject) => {
        store.transaction.oncomplete = resolve;
        store.transaction.onabort = () => reject(store.transaction.error);
      });
    } catch {
      this.isKept = false; // the disk is full, or the browser took the database away
    }
  }

  #store(mode) {
    return this.#database.transaction("runs", mode).objectStore("runs");
  }
}

/** Return a small picture of an output, null when it cannot be shown as one. */
export async function thumbnailOf({ media_type: type, blob }) {
  try {
    if (kindOf(type) === "image") return await ofImage(blob);
    if (kindOf(type) === "video") return await ofVideo(blob);
  } catch {
    return null; // what the browser cannot decode is listed with an icon
  }
  return null;
}

async function ofImage(blob) {
  const image = await createImageBitmap(blob);
  try {
    return await drawn(image);
  } finally {
    image.close();
  }
}

async function ofVideo(blob) {
  const video = document.createElement("video");
  video.muted = true;
  video.src = URL.createObjectURL(blob);
  try {
    await heard(video, "loadeddata");
    // A picture is drawn only of a video that has shown one, and the first is often dark.
    video.currentTime = Math.min(video.duration / 2 || 0, 1);
    await heard(video, "seeked");
    return await drawn(video, video.videoWidth, video.videoHeight);
  } finally {
    URL.revokeObjectURL(video.src);
    video.removeAttribute("src");
    video.load();
  }
}

/** Wait for an event of a video, as long as that is worth it. */
function heard(video, name) {
  return new Promise((resolve, reject) => {
    video.addEventListener(name, resolve, { once: true });
    video.addEventListener("error", () => reject(new Error("the video cannot be decoded")), { once: true });
    setTimeout(() => reject(new Error("the video takes too long")), 5000);
  });
}

function drawn(source, width = source.width, height = source.height) {
  const canvas = document.createElement("canvas");
  const scale = THUMBNAIL / Math.min(width, height);
  canvas.width = canvas.height = THUMBNAIL;
  canvas.getContext("2d").drawImage(source, (THUMBNAIL - width * scale) / 2, (THUMBNAIL - height * scale) / 2, width * scale, height * scale);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.85));
}

function opened(name) {
  const request = indexedDB.open(name, 1);
  request.onupgradeneeded = () => request.result.createObjectStore("runs", { keyPath: "job" });
  return request;
}

const promised = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const blobsIn = (values) =>
  Object.values(values).flatMap((value) => (value instanceof Blob ? [value] : value && typeof value === "object" ? Object.values(value).filter((one) => one instanceof Blob) : []));
