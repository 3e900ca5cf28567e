// Who becomes whom, a look at one frame, and the beginning of jobs.
import * as api from "./api.js";
import { alertUser, clearAlert, find, make } from "./dom.js";
import { followJob } from "./jobs.js";
import { readOptions } from "./options.js";
import { duration, texts } from "./texts.js";
import { Shelf } from "./upload.js";

const PREVIEW_PX = 960;
const SLOTS = 4;

export class SwapView {
  constructor(capabilities, onSources) {
    this.hasPersons = capabilities.persons;
    this.chosen = null;
    this.asked = 0;
    // Of each target: the search for its faces, and which source each person is given.
    this.found = new Map();
    this.sources = new Shelf("source", ["photo"], () => {
      this.showCasting();
      onSources(this.sources.assets);
    });
    this.targets = new Shelf("target", ["photo", "video"], (asset) => this.chooseTarget(asset));
    find("moment").addEventListener("input", () => this.showMoment());
    find("moment").addEventListener("change", () => this.showBefore());
    find("wipe").addEventListener("input", () => this.wipe());
    find("show-preview").addEventListener("click", () => this.showAfter());
    find("begin").addEventListener("click", () => this.begin());
  }

  chooseTarget(asset) {
    this.chosen = asset;
    find("moment").value = 0;
    find("moment").max = asset ? Math.max(0, asset.duration_s - 1 / (asset.rate || 25)) : 0;
    find("moment-row").hidden = asset?.kind !== "video";
    if (asset) {
      this.showMoment();
      this.showBefore();
      if (this.hasPersons && !this.found.has(asset.id)) this.lookForFaces(asset);
    }
    this.showCasting();
  }

  async lookForFaces(asset) {
    const search = { job: null, roles: new Map() };
    this.found.set(asset.id, search);
    try {
      const begun = await api.findFaces(asset.id);
      api.follow(begun.id, (job) => {
        search.job = job;
        this.showCasting();
      });
    } catch (problem) {
      this.found.delete(asset.id);
      alertUser(problem);
    }
  }

  showCasting() {
    const isReady = this.chosen !== null && this.sources.assets.length > 0;
    find("casting").hidden = !isReady;
    if (!isReady) return;
    const search = this.found.get(this.chosen.id);
    const list = find("persons");
    if (!this.hasPersons) {
      find("persons-state").textContent = texts.anyFaces;
      const slots = Math.min(SLOTS, Math.max(1, this.sources.assets.length));
      list.replaceChildren(...Array.from({ length: slots }, (_, index) =>
        this.personTile(this.rolesOf(this.chosen), index + 1, texts.nthFace(index + 1), null)));
      return;
    }
    const job = search?.job;
    if (job?.state === "failed") {
      find("persons-state").textContent = job.error.message;
      list.replaceChildren();
    } else if (job?.state !== "succeeded") {
      find("persons-state").textContent = texts.lookingForFaces(Math.round(100 * (job?.progress ?? 0)));
      list.replaceChildren();
    } else {
      const persons = job.result.persons;
      find("persons-state").textContent =
        persons.length ? texts.personsFound(persons.length) : texts.nobodyFound;
      list.replaceChildren(...persons.map((person) =>
        this.personTile(search.roles, person.number, texts.personName(person.number), {
          ...person, src: `/v1/jobs/${job.id}/outputs/${person.thumbnail}`,
        })));
    }
  }

  rolesOf(asset) {
    if (!this.found.has(asset.id)) this.found.set(asset.id, { job: null, roles: new Map() });
    return this.found.get(asset.id).roles;
  }

  personTile(roles, number, name, person) {
    const sources = this.sources.assets;
    // The first persons are given the first sources until somebody says otherwise.
    const known = roles.get(number);
    const isKnown = known === "" || sources.some((source) => source.id === known);
    const usual = number <= sources.length ? sources[number - 1].id : "";
    if (!isKnown) roles.delete(number);
    const select = make(
      "select",
      { "aria-label": texts.becomes(name), onchange: () => roles.set(number, select.value) },
      make("option", { value: "", textContent: texts.stays }),
      ...sources.map((source) => make("option", { value: source.id, textContent: source.name })),
    );
    select.value = isKnown ? known : usual;
    select.dataset.number = number;
    const shown = [make("span", { textContent: texts.becomes(name) }), select];
    if (person) {
      shown.unshift(make("img", { src: person.src, alt: name, width: 96, height: 96 }));
      shown.push(make("small", { textContent: texts.personSeen(person) }));
    }
    return make("li", { className: "person" }, ...shown);
  }

  // As a request has them, of the target that is shown.
  swaps() {
    const search = this.found.get(this.chosen.id);
    const swaps = [];
    for (const select of find("persons").querySelectorAll("select")) {
      if (!select.value) continue;
      const swap = { source: [select.value] };
      if (this.hasPersons)
        swap.replaces = { faces: search.job.id, person: Number(select.dataset.number) };
      swaps.push(swap);
    }
    return swaps;
  }

  showMoment() {
    find("moment-shown").textContent = duration(Number(find("moment").value));
  }

  showBefore() {
    const asset = this.chosen;
    find("before").src = api.frameUrl(asset.id, Number(find("moment").value), PREVIEW_PX);
    find("before").alt = texts.before;
    this.hideAfter();
  }

  hideAfter() {
    this.asked += 1;
    find("after").hidden = find("wipe-row").hidden = true;
    find("preview-state").textContent = "";
  }

  async showAfter() {
    clearAlert();
    this.hideAfter();
    const asked = this.asked;
    const asset = this.chosen;
    const state = find("preview-state");
    state.textContent = texts.previewing;
    try {
      const { options } = readOptions(asset.kind);
      const { faces, picture } = await api.preview({
        target: asset.id, swaps: this.swaps(), options, at_s: Number(find("moment").value),
        longest_px: PREVIEW_PX,
      });
      if (asked !== this.asked) return;
      const after = find("after");
      if (after.src) URL.revokeObjectURL(after.src);
      after.src = URL.createObjectURL(picture);
      after.alt = texts.after;
      after.hidden = find("wipe-row").hidden = false;
      this.wipe();
      state.textContent = texts.previewDone(faces);
    } catch (problem) {
      state.textContent = "";
      alertUser(problem);
    }
  }

  wipe() {
    find("after").style.clipPath = `inset(0 0 0 ${find("wipe").value}%)`;
  }

  async begin() {
    clearAlert();
    const asset = this.chosen;
    const { options, output, requireFace } = readOptions(asset.kind);
    try {
      const job = await api.beginJob({
        target: asset.id, swaps: this.swaps(), options, output, require_face: requireFace,
      });
      followJob(job);
      find("jobs-state").textContent = texts.jobBegun(asset.name);
      location.hash = "#jobs";
    } catch (problem) {
      alertUser(problem);
    }
  }
}
