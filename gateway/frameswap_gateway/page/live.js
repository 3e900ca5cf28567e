// The camera there and back: JPEG pictures over a WebSocket, the newest first, the rest dropped.
import { alertUser, clearAlert, find, make } from "./dom.js";
import { texts } from "./texts.js";

const WIDTH = 640;
const QUALITY = 0.8;
const MOST_UNDER_WAY = 3;
const KEPT = 30;

let session = null;

export function showLiveSources(assets) {
  const select = find("live-source");
  const options = assets.map((asset) => make("option", { value: asset.id, textContent: asset.name }));
  if (!options.length) options.push(make("option", { value: "", textContent: texts.liveNoSource }));
  select.replaceChildren(...options);
  find("live-start").disabled = !assets.length;
}

export function prepareLive() {
  showLiveSources([]);
  find("live-start").addEventListener("click", start);
  find("live-stop").addEventListener("click", () => stop());
  addEventListener("pagehide", () => stop());
}

async function start() {
  clearAlert();
  let camera;
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { width: WIDTH }, audio: false });
  } catch (error) {
    alertUser({ code: "camera", message: String(error.message ?? error) });
    return;
  }
  const video = find("camera");
  video.srcObject = camera;
  await video.play();
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/v1/live`);
  socket.binaryType = "arraybuffer";
  session = { camera, socket, sent: new Map(), number: 0, shown: 0, delays: [], times: [] };
  const mine = session;
  find("live-start").hidden = true;
  find("live-stop").hidden = false;
  find("live-state").textContent = texts.liveWaiting;
  socket.onopen = () =>
    socket.send(JSON.stringify({ source: [find("live-source").value] }));
  socket.onmessage = (event) => {
    if (typeof event.data !== "string") show(mine, event.data);
    else {
      const told = JSON.parse(event.data);
      if (told.ready) send(mine);
      else alertUser({ code: told.code, message: told.detail });
    }
  };
  socket.onclose = () => stop(mine);
}

function stop(which = session) {
  if (which === null || which !== session) return;
  session = null;
  which.socket.close();
  for (const track of which.camera.getTracks()) track.stop();
  find("camera").srcObject = null;
  find("live-start").hidden = false;
  find("live-stop").hidden = true;
  find("live-state").textContent = texts.liveEnded;
}

function send(mine) {
  if (mine !== session) return;
  const video = find("camera");
  // A picture more than the one that is swapped: the gateway has the newest when it is done.
  if (mine.sent.size < MOST_UNDER_WAY && video.videoWidth) {
    const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const number = ++mine.number;
    mine.sent.set(number, performance.now());
    canvas.toBlob(async (blob) => {
      if (mine !== session || mine.socket.readyState !== WebSocket.OPEN) return;
      const head = new Uint8Array(4);
      new DataView(head.buffer).setUint32(0, number);
      mine.socket.send(await new Blob([head, blob]).arrayBuffer());
    }, "image/jpeg", QUALITY);
  }
  setTimeout(() => send(mine), 1000 / 30);
}

async function show(mine, data) {
  const number = new DataView(data).getUint32(0);
  const began = mine.sent.get(number);
  // Older ones were dropped, or will be.
  for (const older of mine.sent.keys()) if (older <= number) mine.sent.delete(older);
  const picture = await createImageBitmap(new Blob([data.slice(5)], { type: "image/jpeg" }));
  if (mine !== session || number < mine.shown) return;
  mine.shown = number;
  const canvas = find("swapped");
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").drawImage(picture, 0, 0);
  const now = performance.now();
  mine.delays = [...mine.delays, now - began].slice(-KEPT);
  mine.times = [...mine.times, now].slice(-KEPT);
  const middle = [...mine.delays].sort((a, b) => a - b)[Math.floor(mine.delays.length / 2)];
  const seconds = (now - mine.times[0]) / 1000;
  const rate = seconds > 0 ? (mine.times.length - 1) / seconds : 0;
  // A rate takes two pictures.
  if (mine.times.length % 10 === 2 || mine.times.length === KEPT)
    find("live-state").textContent = texts.liveRunning(Math.round(middle), rate.toFixed(1));
}
