// The page's beginning: who is there, what this deployment can do, and which part is shown.
import * as api from "./api.js";
import { alertUser, fillTexts, find } from "./dom.js";
import { showJobs } from "./jobs.js";
import { prepareLive, showLiveSources } from "./live.js";
import { showOptions } from "./options.js";
import { SwapView } from "./swap.js";
import { texts } from "./texts.js";

const CONSENT = "frameswap-consent";
const TABS = ["swap", "jobs", "live"];

function showTab() {
  const wanted = location.hash.slice(1);
  const tab = TABS.includes(wanted) ? wanted : "swap";
  for (const each of TABS) find(each).hidden = each !== tab;
  for (const link of document.querySelectorAll("nav a"))
    if (link.hash === `#${tab}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
}

// Until somebody has agreed, Escape leaves nothing behind that works.
function askOnce(dialog, isDone) {
  return new Promise((go) => {
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", async () => {
      if (await isDone()) go();
      else dialog.showModal();
    });
    dialog.showModal();
  });
}

async function signIn() {
  const { wanted, owner } = await api.getSession();
  if (!wanted || owner !== null) return;
  await askOnce(find("sign-in"), async () => {
    try {
      await api.signIn(find("token").value);
      return true;
    } catch (problem) {
      find("sign-in-state").textContent = problem.message;
      return false;
    } finally {
      find("token").value = "";
    }
  });
}

async function askConsent(swapper) {
  find("consent-licence").textContent = texts.consentLicence(swapper);
  if (localStorage.getItem(CONSENT) === swapper.name) return;
  await askOnce(find("consent"), () => find("consent-box").checked);
  localStorage.setItem(CONSENT, swapper.name);
}

async function begin() {
  fillTexts();
  showTab();
  addEventListener("hashchange", showTab);
  prepareLive();
  try {
    await signIn();
    // Jobs are shown even where no server answers to say what it can do.
    const jobs = showJobs();
    const capabilities = await api.getCapabilities();
    find("about").textContent = texts.about(capabilities.swapper);
    showOptions(capabilities);
    new SwapView(capabilities, showLiveSources);
    await Promise.all([jobs, askConsent(capabilities.swapper)]);
    document.body.dataset.ready = "yes";
  } catch (problem) {
    alertUser(problem);
  }
}

begin();
