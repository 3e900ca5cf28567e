// What the gateway offers, as functions. Every failure is a Problem with a code and a sentence.
const CHUNK_BYTES = 8 << 20;
const TRIES = 6;

export class Problem extends Error {
  constructor(code, message, more = {}) {
    super(message);
    this.code = code;
    this.more = more;
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw new Problem("offline", String(error.message ?? error));
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Problem(told.code ?? String(answer.status), told.detail ?? answer.statusText, told);
}

const json = async (path, options) => (await ask(path, options)).json();
const sending = (method, body, headers = {}) => ({
  method, body: JSON.stringify(body), headers: { "content-type": "application/json", ...headers },
});

export const getSession = () => json("/v1/session");
export const signIn = (token) => ask("/v1/session", sending("POST", { token }));
export const getCapabilities = () => json("/v1/capabilities");
export const listJobs = () => json("/v1/jobs?limit=100");
export const beginJob = (wanted) => json(`/v1/jobs/${newId()}`, sending("PUT", wanted));
export const findFaces = (target) => json("/v1/faces", sending("POST", { target }));
export const cancelJob = (id) => json(`/v1/jobs/${id}/cancel`, { method: "POST" });
export const deleteJob = (id) => ask(`/v1/jobs/${id}`, { method: "DELETE" });
export const deleteAsset = (id) => ask(`/v1/assets/${id}`, { method: "DELETE" });

export const frameUrl = (id, atS, longest) =>
  `/v1/assets/${id}/frame?at_s=${atS}&longest_px=${longest}`;

export async function preview(wanted) {
  const answer = await ask("/v1/previews", sending("POST", wanted));
  return { faces: answer.headers.get("Faces-Found"), picture: await answer.blob() };
}

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// In parts, so that a connection that breaks costs one of them.
export async function upload(file, onShare) {
  const id = newId();
  const url = `/v1/assets/${id}?name=${encodeURIComponent(file.name.slice(-200))}`;
  let received = 0;
  let tries = 0;
  for (;;) {
    const end = Math.min(file.size, received + CHUNK_BYTES);
    const options = { method: "PUT", body: file.slice(received, end) };
    if (file.size > CHUNK_BYTES)
      options.headers = { "Content-Range": `bytes ${received}-${end - 1}/${file.size}` };
    try {
      const asset = await json(url, options);
      if (asset.state === "ready") return asset;
      received = asset.received;
      tries = 0;
      onShare(Math.round((100 * received) / file.size));
    } catch (problem) {
      if (problem.code === "wrong-offset") received = problem.more.received;
      else if (problem.code !== "offline" && problem.code !== "upload-running") throw problem;
      if (++tries > TRIES) throw problem;
      await new Promise((go) => setTimeout(go, 500 * 2 ** tries));
    }
  }
}

// Calls back with the job at each change, to its end; goes on by itself after a lost connection.
export function follow(id, onJob) {
  const stream = new EventSource(`/v1/jobs/${id}/events`);
  stream.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    if (["succeeded", "failed", "canceled"].includes(job.state)) stream.close();
    onJob(job);
  });
  stream.addEventListener("error", () => {
    // A browser gives up where a proxy answers for a gateway that is away.
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => resume(), 2000);
  });
  let next = null;
  function resume() {
    next = follow(id, onJob);
  }
  return () => {
    stream.close();
    next?.();
  };
}
