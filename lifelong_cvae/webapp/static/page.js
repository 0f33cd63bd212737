// The live page: recognizes a drawing while it is drawn; imagines, teaches and drops categories.

const $ = (id) => document.getElementById(id);
const PEN_WIDTH = 20; // in pixels of the canvas
const POLL_INTERVAL = 300; // milliseconds between two requests for the progress of learning

// Requests

async function request(path, options = {}) {
  const response = await fetch(path, options);
  const values = await response.json();
  if (!response.ok) throw new Error(values.error);
  return values;
}

const post = (name, body) => request(`api/${name}`, { method: "POST", body });
const postJson = (name, values) => post(name, JSON.stringify(values));

function setStatus(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", isError);
}

// Wraps an event handler: errors are shown in the status line.
const showErrors = (action) => async (event) => {
  try {
    await action(event);
  } catch (error) {
    setStatus(error.message, true);
  }
};

// Wraps an action so that one call runs at a time. Calls during a run are merged into a single run after it. The
// region is marked as busy meanwhile.
function mergeCalls(region, action) {
  let running = false;
  let repeat = false;
  return showErrors(async () => {
    if (running) {
      repeat = true;
      return;
    }
    running = true;
    region.setAttribute("aria-busy", "true");
    try {
      do {
        repeat = false;
        await action();
      } while (repeat);
    } finally {
      running = false;
      region.setAttribute("aria-busy", "false");
    }
  });
}

// Draw

const canvas = $("canvas");
const context = canvas.getContext("2d");
const answerRegion = document.querySelector(".answer");
let strokes = [];
let uploaded = null; // { pixels } of an upload that takes the place of the strokes
let seen = null; // picture of the image that was recognized last
let changeTime = 0; // time of the last change of the drawing, for the measured response time

const currentImage = () => uploaded ?? (strokes.length ? { strokes } : null);

function redraw() {
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = "#fff";
  context.lineWidth = PEN_WIDTH;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(...stroke[0]);
    for (const point of stroke) context.lineTo(...point);
    context.stroke();
  }
}

function canvasPoint(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

const recognize = mergeCalls(answerRegion, async () => {
  const image = currentImage();
  const start = changeTime;
  if (!image) {
    answerRegion.hidden = true;
    return;
  }
  const answer = await postJson("answer", image);
  if (!currentImage()) return; // cleared during the request
  showAnswer(answer);
  performance.measure("answer", { start, end: performance.now() });
});

function onDrawingChange() {
  changeTime = performance.now();
  redraw();
  recognize();
}

function showAnswer(answer) {
  answerRegion.hidden = false;
  seen = answer.seen;
  $("seen").src = answer.seen;
  $("best").textContent = answer.best + (answer.unknown ? ", but it is unlike all known categories" : "");
  $("turns").src = answer.turns;
  const list = $("categories");
  const names = answer.categories.map((category) => category.name);
  if (JSON.stringify(names) !== list.dataset.names) {
    list.dataset.names = JSON.stringify(names);
    list.replaceChildren(...answer.categories.map(createCategoryItem));
  }
  answer.categories.forEach((category, index) => {
    const [picture, label, meter] = list.children[index].children;
    picture.src = category.picture;
    label.textContent = `${category.name}: ${(100 * category.probability).toFixed(1)} %`;
    meter.value = category.probability;
    list.children[index].classList.toggle("best", category.name === answer.best);
  });
}

function createCategoryItem({ name }) {
  const item = document.createElement("li");
  const picture = document.createElement("img");
  picture.alt = `Reconstruction by ${name}`;
  const meter = document.createElement("meter");
  meter.setAttribute("aria-label", `Probability of ${name}`);
  item.append(picture, document.createElement("span"), meter);
  return item;
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  uploaded = null;
  strokes.push([canvasPoint(event)]);
  onDrawingChange();
});
canvas.addEventListener("pointermove", (event) => {
  if (!canvas.hasPointerCapture(event.pointerId)) return;
  const moves = event.getCoalescedEvents?.() ?? [];
  strokes.at(-1).push(...(moves.length ? moves : [event]).map(canvasPoint));
  onDrawingChange();
});
$("undo").addEventListener("click", () => {
  strokes.pop();
  onDrawingChange();
});

function clear() {
  strokes = [];
  uploaded = null;
  seen = null;
  onDrawingChange();
}
$("clear").addEventListener("click", clear);

async function upload(file) {
  const query = new URLSearchParams({ writing: $("writing").checked });
  return post(`upload?${query}`, file);
}
$("upload").addEventListener("change", showErrors(async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  event.target.value = "";
  const { pixels, picture } = await upload(file);
  clear();
  uploaded = { pixels };
  const image = new Image();
  image.src = picture;
  await image.decode();
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  changeTime = performance.now();
  recognize();
}));

// Imagine

const selectedCategory = () => $("category").value;
const sliders = () => [...$("sliders").querySelectorAll("input")];

const updateWalk = mergeCalls($("walk"), async () => {
  const positions = sliders().map((slider) => slider.value).join(",");
  const query = new URLSearchParams({ category: selectedCategory(), positions });
  $("walk").src = (await request(`api/along?${query}`)).picture;
});

function resetSliders() {
  for (const slider of sliders()) slider.value = 0;
  updateWalk();
}

function createSliders(count, reach) {
  $("sliders").replaceChildren(...Array.from({ length: count }, (_, index) => {
    const label = document.createElement("label");
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: -reach, max: reach, step: 0.1, value: 0 });
    slider.addEventListener("input", updateWalk);
    label.append(`Direction ${index + 1}`, slider);
    return label;
  }));
}

$("reset").addEventListener("click", resetSliders);
$("category").addEventListener("change", () => {
  $("imagined").hidden = true;
  resetSliders();
});
let seed = 0;
$("imagine").addEventListener("click", showErrors(async () => {
  seed += 1;
  const query = new URLSearchParams({ category: selectedCategory(), count: 10, seed });
  $("imagined").src = (await request(`api/imagine?${query}`)).picture;
  $("imagined").hidden = false;
}));

// Teach

let examples = []; // { image: { strokes } or { pixels }, picture }

function showExamples() {
  $("count").textContent = examples.length;
  $("examples").replaceChildren(...examples.map(({ picture }, index) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    const image = document.createElement("img");
    Object.assign(image, { src: picture, alt: `Remove example ${index + 1}` });
    button.append(image);
    button.addEventListener("click", () => {
      examples.splice(index, 1);
      showExamples();
    });
    item.append(button);
    return item;
  }));
}

$("add").addEventListener("click", () => {
  if (!currentImage() || !seen) {
    setStatus("Draw an example in the area above first.", true);
    return;
  }
  examples.push({ image: currentImage(), picture: seen });
  clear();
  showExamples();
});
$("examples-upload").addEventListener("change", showErrors(async (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  try {
    for (const file of files) {
      const { pixels, picture } = await upload(file);
      examples.push({ image: { pixels }, picture });
    }
  } finally {
    showExamples();
  }
}));
$("teach").addEventListener("submit", (event) => {
  event.preventDefault();
  showErrors(async () => {
    const name = $("name").value.trim();
    await postJson("teach", { name, examples: examples.map(({ image }) => image) });
    setStatus(`${name} is being learned`);
    await followTeaching();
  })();
});

// Shows the progress of learning until it ends.
async function followTeaching() {
  $("progress").hidden = false;
  try {
    for (;;) {
      const { teaching } = await request("api/state");
      $("progress").value = teaching.progress;
      if (teaching.result) {
        setStatus(teaching.result, teaching.failed);
        if (!teaching.failed) {
          examples = [];
          showExamples();
          $("name").value = "";
        }
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL));
    }
  } finally {
    $("progress").hidden = true;
    await refresh();
  }
}

$("save").addEventListener("click", showErrors(async () => {
  setStatus(`Saved to ${(await post("save")).folder}`);
}));

// Known categories

function createNameItem(name) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Drop";
  button.setAttribute("aria-label", `Drop ${name}`);
  button.addEventListener("click", showErrors(async () => {
    if (!window.confirm(`Drop ${name}?`)) return;
    await postJson("drop", { name });
    setStatus(`${name} was dropped`);
    await refresh();
  }));
  item.append(name, button);
  return item;
}

async function refresh() {
  const { names } = await request("api/state");
  $("known").textContent = `${names.length} ${names.length === 1 ? "category is" : "categories are"} known.`;
  $("names").replaceChildren(...names.map(createNameItem));
  const selected = selectedCategory();
  $("category").replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(selected)) $("category").value = selected;
  updateWalk();
  recognize();
}

showErrors(async () => {
  const state = await request("api/state");
  createSliders(state.sliders, state.reach);
  $("minimum").textContent = state.minimum_examples;
  $("writing").checked = state.writing;
  await refresh();
  document.body.dataset.ready = "yes";
  if (state.teaching && !state.teaching.result) await followTeaching();
})();
