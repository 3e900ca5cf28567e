// Every word of the page. Another language is another object of the same keys.
export const texts = {
  title: "frameswap",
  tabs: "Parts of this page",
  tabSwap: "Swap",
  tabJobs: "Jobs",
  tabLive: "Live",
  about: (swapper) =>
    `Swapper ${swapper.name} (${swapper.licence}; allows: ${swapper.allows}). ` +
    (swapper.mark === "composite"
      ? "Results are marked as edited."
      : "Results are marked as edited by AI."),
  sources: "1. Whose face",
  targets: "2. Into which photo or video",
  dropSources: "Drop photos here, or choose them",
  dropTargets: "Drop photos or videos here, or choose them",
  persons: "3. Who becomes whom",
  lookingForFaces: (share) => `Looking for faces${share ? `, ${share} %` : ""} …`,
  personsFound: (count) => (count === 1 ? "One person was found." : `${count} persons were found.`),
  nobodyFound: "No face was found.",
  anyFaces: "Faces are taken by size, the largest first.",
  personName: (number) => `Person ${number}`,
  personSeen: (person) => `seen ${Math.round(person.share * 100)} %, ${Math.round(person.size_px)} px`,
  becomes: (name) => `${name} becomes`,
  nthFace: (number) => (number === 1 ? "The largest face" : `Face ${number}`),
  stays: "stays as is",
  preview: "4. Look before you begin",
  moment: "Moment",
  wipe: "Before and after",
  showPreview: "Show this frame swapped",
  previewing: "Swapping this frame …",
  previewDone: (faces) => (faces === "1" ? "One face was found here." : `${faces} faces were found here.`),
  before: "The frame as it is",
  after: "The frame swapped",
  options: "Options",
  masks: "What bounds the swapped part (nothing chosen: as usual)",
  maskNames: { box: "box", hull: "outline of the face", own: "the swapper's own", none: "nothing",
    occlusion: "what is in front stays", regions: "parts of the face" },
  keep: "Parts that stay as they are",
  keepNames: { mouth: "mouth", lips: "lips", eyes: "eyes", brows: "brows" },
  areas: "Show the swap there only",
  areaNames: { "upper-face": "upper face", "lower-face": "lower face", mouth: "mouth" },
  weight: "How much of the swap is shown",
  enhance: (name) => `How much the enhancer ${name} is shown`,
  steady: "Keep faces steady from frame to frame",
  codec: "Video codec",
  codecUsual: "as usual",
  requireFace: "Fail where no face is found",
  begin: "Swap",
  uploading: (name, share) => `${name}: ${share} % uploaded`,
  remove: (name) => `Remove ${name}`,
  choose: (name) => `Show ${name}`,
  states: {
    queued: "waits", processing: "runs", succeeded: "done", failed: "failed", canceled: "canceled",
  },
  kinds: { photo: "photo", video: "video", faces: "search for faces" },
  canceling: "is being canceled",
  progress: (job) => {
    const parts = [`${job.frames}${job.total ? ` of ${job.total}` : ""} frames`];
    if (job.rate) parts.push(`${job.rate.toFixed(1)} a second`);
    if (job.left_s !== null && job.state === "processing") parts.push(`${duration(job.left_s)} left`);
    return parts.join(", ");
  },
  cancel: "Cancel",
  download: "Download",
  report: "Report",
  delete: "Delete",
  noJobs: "There are no jobs yet.",
  jobBegun: (name) => `The job of ${name} has begun.`,
  liveHow: "The camera's picture goes to this gateway and comes back swapped; nothing is kept.",
  liveSource: "Face",
  liveNoSource: "add a photo under Swap first",
  liveStart: "Start the camera",
  liveStop: "Stop",
  liveWaiting: "Starting …",
  liveRunning: (delay, rate) => `${delay} ms delay, ${rate} frames a second`,
  liveEnded: "The camera is off.",
  camera: "Your camera",
  swapped: "The camera's picture, swapped",
  footer:
    "Swap only faces of people who agreed to it. Do not deceive, harass or impersonate. " +
    "Files are removed when they were not used for a while.",
  consentHead: "Before you begin",
  consentText:
    "Putting somebody's face into a picture without their consent hurts people, and is a crime in " +
    "many countries. Every result says in its metadata that faces were replaced: leave that in.",
  consentLicence: (swapper) =>
    `The swapper here, ${swapper.name}, is under ${swapper.licence}. It allows: ${swapper.allows}.`,
  consentBox: "Everybody whose face I use has agreed, and I keep to the licence.",
  consentGo: "Go on",
  signInHead: "Sign in",
  signInToken: "Your token",
  signInGo: "Sign in",
  problems: {
    "no-face-found": "No face was found. Use a picture with a larger, upright face.",
    "several-faces-found": "There are several faces in the source photo: crop it to one.",
    "too-large": "That is too large.",
    "not-a-picture": "That is neither a photo nor a video that can be read.",
    "too-many": "There is much to do just now: try again in a moment.",
    "storage-full": "There is no room for that: delete something first.",
    "server-unreachable": "The swapping server does not answer just now.",
    offline: "The gateway does not answer: it is started again, or the network is gone.",
    camera: "The camera cannot be used.",
  },
};

export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${String(whole % 60).padStart(2, "0")} min`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")} h`;
}
