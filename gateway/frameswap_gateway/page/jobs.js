// Jobs that run and jobs that were: progress, cancel, download, delete.
import * as api from "./api.js";
import { alertUser, find, make } from "./dom.js";
import { texts } from "./texts.js";

const rows = new Map();

export async function showJobs() {
  const { jobs } = await api.listJobs();
  for (const job of jobs.reverse()) if (job.kind !== "faces") followJob(job);
  if (!rows.size) find("jobs-state").textContent = texts.noJobs;
}

export function followJob(job) {
  if (rows.has(job.id)) return;
  const row = make("li", { className: "job" });
  rows.set(job.id, row);
  find("job-list").prepend(row);
  show(row, job);
  if (!job.completed) api.follow(job.id, (newer) => show(row, newer));
}

function show(row, job) {
  // Only what changed is made anew: a button that has the focus keeps it.
  const isNewState = row.dataset.state !== `${job.state}${job.canceling}`;
  if (isNewState) {
    row.dataset.state = `${job.state}${job.canceling}`;
    row.dataset.job = job.state;
    const name = job.result.names ? Object.values(job.result.names)[0] : job.id;
    row.replaceChildren(
      make("h3", { textContent: name }),
      make("p", { className: "state", role: "status",
        textContent: job.canceling ? texts.canceling : texts.states[job.state] }),
      ...bodyOf(row, job, name),
    );
  }
  const bar = row.querySelector("progress");
  if (bar) {
    bar.value = job.progress;
    row.querySelector(".numbers").textContent = texts.progress(job);
    row.querySelector(".note").textContent = job.notes.at(-1) ?? "";
  }
  const newest = row.querySelector("img.newest");
  if (newest && job.frames > 0) newest.src = `/v1/jobs/${job.id}/outputs/newest.jpg?${job.revision}`;
}

function bodyOf(row, job, name) {
  if (job.state === "succeeded") return doneBody(row, job, name);
  if (job.completed) {
    const says = job.error ? [texts.problems[job.error.code], job.error.message] : [];
    return [
      make("p", { className: "error", textContent: says.filter(Boolean).join(" ") }),
      removeButton(row, job, name),
    ];
  }
  const newest = make("img", { className: "newest", alt: "" });
  newest.addEventListener("error", () => newest.removeAttribute("src"));
  const cancel = make("button", {
    type: "button", textContent: texts.cancel, "aria-label": `${texts.cancel}: ${name}`,
    disabled: job.canceling,
    onclick: () => {
      cancel.disabled = true;
      api.cancelJob(job.id).catch(alertUser);
    },
  });
  const numbers = make("p", { className: "numbers" });
  const note = make("p", { className: "note" });
  return [make("progress", { max: 1, "aria-label": name }), numbers, note,
    ...(job.kind === "video" ? [newest] : []), cancel];
}

function doneBody(row, job, name) {
  const body = [];
  const [result] = job.outputs;
  if (result.media_type === "video/mp4" || result.media_type === "video/webm")
    body.push(make("video", { src: result.href, controls: true, preload: "metadata",
      "aria-label": name }));
  else if (result.media_type.startsWith("image/"))
    body.push(make("img", { src: result.href, alt: name, loading: "lazy" }));
  for (const note of job.notes) body.push(make("p", { className: "note", textContent: note }));
  const links = job.outputs.map((output) =>
    make("a", { href: output.href, download: "", className: "button",
      textContent: output === result ? texts.download : texts.report,
      "aria-label": `${output === result ? texts.download : texts.report}: ${name}` }));
  body.push(make("p", { className: "row" }, ...links, removeButton(row, job, name)));
  return body;
}

function removeButton(row, job, name) {
  return make("button", {
    type: "button", textContent: texts.delete, "aria-label": `${texts.delete}: ${name}`,
    onclick: async () => {
      try {
        await api.deleteJob(job.id);
        rows.delete(job.id);
        row.remove();
      } catch (problem) {
        alertUser(problem);
      }
    },
  });
}
