// Files that people drop or choose, as tiles with a picture of each.
import * as api from "./api.js";
import { alertUser, clearAlert, find, make } from "./dom.js";
import { texts } from "./texts.js";

const THUMBNAIL_PX = 192;

export class Shelf {
  // accepts: kinds of asset that may lie here. onChange: called with every one that is ready.
  constructor(prefix, accepts, onChange) {
    this.accepts = accepts;
    this.onChange = onChange;
    this.assets = [];
    this.list = find(`${prefix}s`);
    const input = find(`${prefix}-files`);
    const drop = find(`${prefix}-drop`);
    input.addEventListener("change", () => {
      this.add(input.files);
      input.value = "";
    });
    for (const kind of ["dragenter", "dragover"])
      drop.addEventListener(kind, (event) => {
        event.preventDefault();
        drop.classList.add("over");
      });
    for (const kind of ["dragleave", "drop"])
      drop.addEventListener(kind, () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      this.add(event.dataTransfer.files);
    });
  }

  add(files) {
    clearAlert();
    for (const file of files) this.addOne(file);
  }

  async addOne(file) {
    const state = make("span", { className: "share", textContent: texts.uploading(file.name, 0) });
    const tile = make("li", { role: "listitem" }, state);
    this.list.append(tile);
    try {
      const asset = await api.upload(file, (share) => {
        state.textContent = texts.uploading(file.name, share);
      });
      if (!this.accepts.includes(asset.kind)) {
        await api.deleteAsset(asset.id);
        throw new api.Problem("not-a-picture", file.name);
      }
      this.show(asset, tile);
    } catch (problem) {
      tile.remove();
      alertUser(problem);
    }
  }

  show(asset, tile) {
    const picture = make("img", {
      alt: "", src: api.frameUrl(asset.id, 0, THUMBNAIL_PX),
    });
    const choose = make(
      "button",
      { type: "button", title: texts.choose(asset.name), onclick: () => this.choose(asset) },
      picture, make("span", { textContent: asset.name }),
    );
    const remove = make("button", {
      type: "button", className: "remove", textContent: "×",
      "aria-label": texts.remove(asset.name),
      onclick: () => {
        this.assets = this.assets.filter((each) => each !== asset);
        tile.remove();
        api.deleteAsset(asset.id).catch(alertUser);
        this.onChange(this.assets.at(-1) ?? null);
      },
    });
    tile.replaceChildren(choose, remove);
    asset.tile = tile;
    this.assets.push(asset);
    this.choose(asset);
  }

  choose(asset) {
    for (const each of this.assets)
      each.tile.firstChild.setAttribute("aria-pressed", String(each === asset));
    this.onChange(asset);
  }
}
