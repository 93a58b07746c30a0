// A request as code that can be run as it stands.

export const LANGUAGES = ["curl", "Python", "JavaScript"];

/**
 * Return a request as code.
 *
 * `request` is {url, values, file, hasKey}: the values by name, files among them, and the name of the
 * file to write. The key is read from the variable API_KEY, and never written into the code.
 */
export function codeOf(language, request) {
  const writers = { curl, Python: python, JavaScript: javascript };
  return writers[language](request);
}

/** Say whether a request goes as a form, since it brings files. */
export const isForm = (values) => Object.values(values).some(holdsFile);

/** Return the parts of a form, [name, value]; a file has a name of its own. */
export function partsOf(values) {
  return Object.entries(values).flatMap(([name, value]) => {
    if (name === "files" && holdsFile(value)) {
      return Object.entries(value).map(([file, blob]) => [name, blob, file]);
    }
    if (value instanceof Blob) return [[name, value, value.name ?? `${name}.png`]];
    return [[name, typeof value === "string" ? value : JSON.stringify(value)]];
  });
}

/**
 * Return a form as the body of a request, with its type.
 *
 * As FormData would send it, but for the ends of lines in texts, which that changes.
 */
export function formOf(values) {
  const boundary = `form-${[...crypto.getRandomValues(new Uint32Array(4))].join("-")}`;
  const quoted = (text) => `"${text.replaceAll('"', "%22").replaceAll("\r", "%0D").replaceAll("\n", "%0A")}"`;
  const parts = partsOf(values).flatMap(([name, value, file]) => {
    const head = `--${boundary}\r\nContent-Disposition: form-data; name=${quoted(name)}`;
    const about = file ? `; filename=${quoted(file)}\r\nContent-Type: ${value.type || "application/octet-stream"}` : "";
    return [`${head}${about}\r\n\r\n`, value, "\r\n"];
  });
  return { type: `multipart/form-data; boundary=${boundary}`, body: new Blob([...parts, `--${boundary}--\r\n`]) };
}

function curl({ url, values, file, hasKey }) {
  const key = hasKey ? ['-H "Authorization: Bearer $API_KEY"'] : [];
  const lines = [`job=$(curl --fail-with-body -X POST ${shell(url)}`, ...key];
  if (isForm(values)) {
    for (const [name, value, fileName] of partsOf(values)) {
      // curl reads quotes in a name of a file by rules of its own, and @ and < in a plain -F.
      lines.push(fileName ? `-F ${shell(`${name}=@"${fileName.replace(/["\\]/g, "\\$&")}"`)}` : `--form-string ${shell(`${name}=${value}`)}`);
    }
  } else {
    lines.push("-H 'content-type: application/json'", `-d ${shell(JSON.stringify(values, null, 2))}`);
  }
  const output = `-o ${shell(file)} -w '%header{location}'`;
  lines.push(`${output}) &&`);
  // A long run is answered with 202 and the address of its job; the file is no result yet. Where a key
  // listens to too many jobs, nothing waits but this.
  const again = ["curl --fail-with-body", ...key, "-H 'Prefer: wait=60'", `${shell(new URL(url).origin)}"$job/result"`, output];
  return `${lines.join(" \\\n    ")}\nwhile [ -n "$job" ]; do\n    sleep 1\n    job=$(${again.join(" \\\n        ")}) || break\ndone\n`;
}

function python({ url, values, file, hasKey }) {
  const parts = isForm(values) ? partsOf(values) : null;
  const lines = [
    ...(hasKey ? ["import os"] : []),
    "import time",
    "",
    "import httpx",
    "",
    `url = ${pythonOf(url)}`,
    `headers = ${hasKey ? '{"Authorization": f"Bearer {os.environ[\'API_KEY\']}"}' : "{}"}`,
  ];
  if (parts) {
    lines.push(`fields = ${pythonOf(Object.fromEntries(parts.filter(([, , name]) => !name)))}`);
    lines.push("files = [", ...parts.filter(([, , name]) => name).map(([name, , fileName]) => `    (${pythonOf(name)}, open(${pythonOf(fileName)}, "rb")),`), "]");
  } else {
    lines.push(`params = ${pythonOf(values)}`);
  }
  lines.push(
    "with httpx.Client(headers=headers, timeout=180) as client:",
    `    reply = client.post(url, ${parts ? "data=fields, files=files" : "json=params"})`,
    "    while reply.status_code == 202:  # it takes longer: ask for its result",
    '        time.sleep(float(reply.headers["retry-after"]))',
    '        result = httpx.URL(url).join(f"{reply.headers[\'location\']}/result")',
    "        reply = client.get(result)",
    "reply.raise_for_status()",
    `with open(${pythonOf(file)}, "wb") as output:`,
    "    output.write(reply.content)",
    'print(reply.headers.get("x-cost-usd"), "USD")',
  );
  return `${lines.join("\n")}\n`;
}

function javascript({ url, values, file, hasKey }) {
  const reads = isForm(values) ? "readFileSync, writeFileSync" : "writeFileSync";
  const lines = [
    `import { ${reads} } from "node:fs";`,
    "",
    `const url = ${JSON.stringify(url)};`,
    `const headers = {${hasKey ? " Authorization: `Bearer ${process.env.API_KEY}` " : ""}};`,
    `const params = ${javascriptOf(values)};`,
    "let reply = await fetch(url, {",
    '  method: "POST",',
    '  headers: { ...headers, "content-type": "application/json" },',
    "  body: JSON.stringify(params),",
    "});",
    "while (reply.status === 202) {",
    "  // It takes longer: ask for its result.",
    '  await new Promise((done) => setTimeout(done, 1000 * reply.headers.get("retry-after")));',
    '  reply = await fetch(new URL(`${reply.headers.get("location")}/result`, url), { headers });',
    "}",
    "if (!reply.ok) throw new Error(await reply.text());",
    `writeFileSync(${JSON.stringify(file)}, Buffer.from(await reply.arrayBuffer()));`,
    'console.log(reply.headers.get("x-cost-usd"), "USD");',
  ];
  return `${lines.join("\n")}\n`;
}

const holdsFile = (value) =>
  value instanceof Blob || (value !== null && typeof value === "object" && !Array.isArray(value) && Object.values(value).some((one) => one instanceof Blob));

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Return a JSON value as a literal of Python: its strings are JSON's, its other words are not. */
function pythonOf(value, indent = "") {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const inner = `${indent}    `;
  const items = Object.entries(value).map(([name, one]) => {
    const text = pythonOf(one, inner);
    return Array.isArray(value) ? text : `${JSON.stringify(name)}: ${text}`;
  });
  const line = `${open}${items.join(", ")}${close}`;
  return line.length < 60 && !line.includes("\n") ? line : [open, ...items.map((item) => `${inner}${item},`), `${indent}${close}`].join("\n");
}

/** Return a value as JavaScript has it: as JSON, but for files, which are read, and sent as base64. */
function javascriptOf(value, indent = "", name = "") {
  if (value instanceof Blob) return `readFileSync(${JSON.stringify(value.name ?? name)}).toString("base64")`;
  if (!holdsFile(value)) return JSON.stringify(value, null, 2).replaceAll("\n", `\n${indent}`);
  const members = Object.entries(value).map(([key, one]) => `${indent}  ${JSON.stringify(key)}: ${javascriptOf(one, `${indent}  `, `${key}.png`)},`);
  return ["{", ...members, `${indent}}`].join("\n");
}
