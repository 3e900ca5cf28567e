// The options that this deployment has, and no others.
import { find, make } from "./dom.js";
import { texts } from "./texts.js";

function boxes(legend, name, values, names) {
  return make(
    "fieldset", {}, make("legend", { textContent: legend }),
    ...values.map((value) =>
      make("label", {}, make("input", { type: "checkbox", name, value }), ` ${names[value]}`),
    ),
  );
}

export function showOptions(capabilities) {
  const { options, codecs, persons } = capabilities;
  const parts = [boxes(texts.masks, "masks", options.masks, texts.maskNames)];
  if (options.keep.length) parts.push(boxes(texts.keep, "keep", options.keep, texts.keepNames));
  if (options.areas.length) parts.push(boxes(texts.areas, "areas", options.areas, texts.areaNames));
  parts.push(
    make("label", {}, `${texts.weight} `,
      make("input", { type: "range", name: "weight", min: 0, max: 100, value: 100 })),
  );
  if (persons)
    parts.push(
      make("label", {}, make("input", { type: "checkbox", name: "steady", checked: true }),
        ` ${texts.steady}`),
    );
  const playable = Object.entries(codecs).filter(([, suffixes]) => suffixes.includes(".mp4"));
  parts.push(
    make("label", {}, `${texts.codec} `,
      make("select", { name: "codec" },
        make("option", { value: "", textContent: texts.codecUsual }),
        ...playable.map(([name]) => make("option", { value: name, textContent: name })))),
    make("label", {}, make("input", { type: "checkbox", name: "requireFace", checked: true }),
      ` ${texts.requireFace}`),
  );
  find("options-form").replaceChildren(...parts);
}

// As a job's request wants them.
export function readOptions(kind) {
  const form = new FormData(find("options-form"));
  const weight = Number(form.get("weight")) / 100;
  const options = { masks: form.getAll("masks"), keep: form.getAll("keep"),
    areas: form.getAll("areas") };
  if (options.masks.includes("none")) options.masks = ["none"];
  if (weight < 1) options.weight = weight;
  if (find("options-form").elements.steady && kind === "video")
    options.steady = form.get("steady") === "on";
  const output = {};
  if (kind === "video" && form.get("codec")) output.codec = form.get("codec");
  return { options, output, requireFace: form.get("requireFace") === "on" };
}
