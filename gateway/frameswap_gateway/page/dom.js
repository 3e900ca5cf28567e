// Finding and making elements, and saying things to people.
import { texts } from "./texts.js";

export const find = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function fillTexts() {
  for (const element of document.querySelectorAll("[data-text]"))
    element.textContent = texts[element.dataset.text];
  for (const element of document.querySelectorAll("[data-label]"))
    element.setAttribute("aria-label", texts[element.dataset.label]);
}

export function alertUser(error) {
  const place = find("alert");
  const known = texts.problems[error?.code];
  place.textContent = known ? `${known} (${error.message})` : String(error?.message ?? error);
  place.hidden = false;
}

export function clearAlert() {
  find("alert").hidden = true;
}
