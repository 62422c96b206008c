// Asks the service: one answer, or a stream of them.

const KEY = "unique-users-token";

/** The token that was typed in; it lasts as long as this tab. */
export const token = {
  read: () => sessionStorage.getItem(KEY) ?? "",
  keep: (text) => sessionStorage.setItem(KEY, text),
};

/** An answer that is none: `status`, and one sentence. */
export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

function headers() {
  const text = token.read();
  return text ? { Authorization: `Bearer ${text}` } : {};
}

async function refuse(response) {
  let detail = `the service answered ${response.status}`;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch {
    // It was no JSON: the status says enough.
  }
  throw new Refusal(response.status, detail);
}

/** The address of a question; parameters that are null are left out, lists are repeated. */
export function address(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") query.append(name, each);
    }
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** The answer to a question; throws a Refusal. */
export async function ask(path, parameters) {
  const response = await fetch(address(path, parameters), { headers: headers(), cache: "no-store" });
  return response.ok ? response.json() : refuse(response);
}

/** The answer as a file; throws a Refusal. */
export async function download(url) {
  const response = await fetch(url, { headers: headers(), cache: "no-store" });
  return response.ok ? response.blob() : refuse(response);
}

/** Calls back with each answer of a stream until it ends; throws a Refusal. EventSource could not bring a token. */
export async function follow(path, take) {
  const response = await fetch(path, { headers: headers(), cache: "no-store" });
  if (!response.ok) await refuse(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length) take(JSON.parse(data.join("\n")));
    }
  }
}
