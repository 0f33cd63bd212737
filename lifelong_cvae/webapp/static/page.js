// The live page: what is drawn is asked about as it is drawn; categories are imagined, taught and dropped.

const $ = (id) => document.getElementById(id);
const PEN = 20; // width of the pen on the canvas
const POLL = 300; // milliseconds between questions how the learning goes on

// Asking the server

async function ask(address, options = {}) {
  const response = await fetch(address, options);
  const values = await response.json();
  if (!response.ok) throw new Error(values.error);
  return values;
}

const post = (name, body) => ask(`api/${name}`, { method: "POST", body });
const send = (name, values) => post(name, JSON.stringify(values));

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

// Runs what a person asked for; what goes wrong is told in the page.
const told = (action) => async (event) => {
  try {
    await action(event);
  } catch (error) {
    say(error.message, true);
  }
};

// Of what is asked while an answer is awaited, only the last is asked. The region says that it is busy.
function latest(region, action) {
  let going = false;
  let again = false;
  return told(async () => {
    if (going) {
      again = true;
      return;
    }
    going = true;
    region.setAttribute("aria-busy", "true");
    try {
      do {
        again = false;
        await action();
      } while (again);
    } finally {
      going = false;
      region.setAttribute("aria-busy", "false");
    }
  });
}

// Drawing

const canvas = $("canvas");
const pen = canvas.getContext("2d");
let strokes = [];
let uploaded = null; // what was uploaded instead of drawn
let seen = null; // the picture of what was last recognised
let since = 0; // when the drawing last changed

const drawing = () => uploaded ?? (strokes.length ? { strokes } : null);

function redraw() {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.strokeStyle = "#fff";
  pen.lineWidth = PEN;
  pen.lineCap = pen.lineJoin = "round";
  for (const stroke of strokes) {
    pen.beginPath();
    pen.moveTo(...stroke[0]);
    for (const point of stroke) pen.lineTo(...point);
    pen.stroke();
  }
}

function pointOf(event) {
  const place = canvas.getBoundingClientRect();
  const scale = canvas.width / place.width;
  return [(event.clientX - place.left) * scale, (event.clientY - place.top) * scale];
}

const recognise = latest(document.querySelector(".answer"), async () => {
  const asked = drawing();
  const from = since;
  if (!asked) {
    document.querySelector(".answer").hidden = true;
    return;
  }
  const answer = await send("answer", asked);
  if (!drawing()) return; // cleared meanwhile
  show(answer);
  performance.measure("answer", { start: from, end: performance.now() });
});

function changed() {
  since = performance.now();
  redraw();
  recognise();
}

function show(answer) {
  document.querySelector(".answer").hidden = false;
  seen = answer.seen;
  $("seen").src = answer.seen;
  $("best").textContent = answer.best + (answer.unknown ? ", but it is like none of them" : "");
  $("turns").src = answer.turns;
  const list = $("categories");
  const names = answer.categories.map((category) => category.name);
  if (JSON.stringify(names) !== list.dataset.names) {
    list.dataset.names = JSON.stringify(names);
    list.replaceChildren(...answer.categories.map(row));
  }
  answer.categories.forEach((category, index) => {
    const [picture, label, meter] = list.children[index].children;
    picture.src = category.picture;
    label.textContent = `${category.name}: ${(100 * category.probability).toFixed(1)} %`;
    meter.value = category.probability;
    list.children[index].classList.toggle("best", category.name === answer.best);
  });
}

function row({ name }) {
  const item = document.createElement("li");
  const picture = document.createElement("img");
  picture.alt = `How ${name} would draw it`;
  const meter = document.createElement("meter");
  meter.setAttribute("aria-label", `Probability of ${name}`);
  item.append(picture, document.createElement("span"), meter);
  return item;
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  uploaded = null;
  strokes.push([pointOf(event)]);
  changed();
});
canvas.addEventListener("pointermove", (event) => {
  if (!canvas.hasPointerCapture(event.pointerId)) return;
  const moves = event.getCoalescedEvents?.() ?? [];
  strokes.at(-1).push(...(moves.length ? moves : [event]).map(pointOf));
  changed();
});
$("undo").addEventListener("click", () => {
  strokes.pop();
  changed();
});

function clear() {
  strokes = [];
  uploaded = null;
  seen = null;
  changed();
}
$("clear").addEventListener("click", clear);

async function upload(file) {
  const query = new URLSearchParams({ writing: $("writing").checked });
  return post(`upload?${query}`, file);
}
$("upload").addEventListener("change", told(async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  event.target.value = "";
  const { pixels, picture } = await upload(file);
  clear();
  uploaded = { pixels };
  const image = new Image();
  image.src = picture;
  await image.decode();
  pen.imageSmoothingEnabled = false;
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  since = performance.now();
  recognise();
}));

// Imagining

const category = () => $("category").value;
const positions = () => [...$("sliders").querySelectorAll("input")].map((slider) => slider.value);

const along = latest($("along"), async () => {
  const query = new URLSearchParams({ category: category(), positions: positions().join(",") });
  $("along").src = (await ask(`api/along?${query}`)).picture;
});

function middle() {
  for (const slider of $("sliders").querySelectorAll("input")) slider.value = 0;
  along();
}

function slide(count, reach) {
  $("sliders").replaceChildren(...Array.from({ length: count }, (_, index) => {
    const label = document.createElement("label");
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: -reach, max: reach, step: 0.1, value: 0 });
    slider.addEventListener("input", along);
    label.append(`direction ${index + 1}`, slider);
    return label;
  }));
}

$("middle").addEventListener("click", middle);
$("category").addEventListener("change", () => {
  $("imagined").hidden = true;
  middle();
});
let seed = 0;
$("others").addEventListener("click", told(async () => {
  seed += 1;
  const query = new URLSearchParams({ category: category(), count: 10, seed });
  $("imagined").src = (await ask(`api/imagine?${query}`)).picture;
  $("imagined").hidden = false;
}));

// Teaching

let examples = []; // { image: what was drawn or uploaded, picture }

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
  if (!drawing() || !seen) {
    say("Draw something first, in the field above.", true);
    return;
  }
  examples.push({ image: drawing(), picture: seen });
  clear();
  showExamples();
});
$("examples-upload").addEventListener("change", told(async (event) => {
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
  told(async () => {
    const name = $("name").value.trim();
    await send("teach", { name, examples: examples.map(({ image }) => image) });
    say(`${name} is being learned`);
    await follow();
  })();
});

// Waits until what is being learned is learned.
async function follow() {
  $("progress").hidden = false;
  try {
    for (;;) {
      const { teaching } = await ask("api/state");
      $("progress").value = teaching.part;
      if (teaching.ended) {
        say(teaching.ended, teaching.failed);
        if (!teaching.failed) {
          examples = [];
          showExamples();
          $("name").value = "";
        }
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, POLL));
    }
  } finally {
    $("progress").hidden = true;
    await refresh();
  }
}

$("save").addEventListener("click", told(async () => {
  say(`Saved into ${(await post("save")).folder}`);
}));

// What is known

function known(name) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Drop";
  button.setAttribute("aria-label", `Drop ${name}`);
  button.addEventListener("click", told(async () => {
    if (!window.confirm(`Forget ${name}?`)) return;
    await send("drop", { name });
    say(`${name} is forgotten`);
    await refresh();
  }));
  item.append(name, button);
  return item;
}

async function refresh() {
  const state = await ask("api/state");
  const { names } = state;
  $("known").textContent = `${names.length} ${names.length === 1 ? "category is" : "categories are"} known.`;
  $("names").replaceChildren(...names.map(known));
  const chosen = category();
  $("category").replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(chosen)) $("category").value = chosen;
  along();
  recognise();
  return state;
}

told(async () => {
  const state = await ask("api/state");
  slide(state.sliders, state.reach);
  $("minimum").textContent = state.minimum_examples;
  $("writing").checked = state.writing;
  await refresh();
  document.body.dataset.ready = "yes";
  if (state.teaching && !state.teaching.ended) await follow();
})();
