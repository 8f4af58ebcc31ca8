const find = (selector) => element.querySelector(selector);
const canvas = find(".labels"), ring = find(".ring"), says = find(".says"), palette = find(".palette-list");
const regions = fixed.regions, DEEPEST = 50;
let map = null, first = null, undone = [], done = [], current = 1, stroke = null, cursor = null;

const tool = () => find(".tools input[type=radio]:checked").value;
const width = () => Number(find(".width").value);

function load(value) {
  map = readLabels(value.labels);
  first = map.data.slice();
  [done, undone] = [[], []];
  canvas.width = map.width;
  canvas.height = map.height;
  find("img").src = value.photo;
  cursor = { x: map.width >> 1, y: map.height >> 1 };
  draw();
  buttons();
}

function draw() {
  const pen = canvas.getContext("2d");
  const picture = pen.createImageData(map.width, map.height);
  for (let i = 0; i < map.data.length; i++) {
    const color = map.data[i] < regions.length ? regions[map.data[i]].color : [0, 0, 0];
    picture.data.set([...color, 255], 4 * i);
  }
  pen.putImageData(picture, 0, 0);
}

function circle() {
  const size = tool() === "fill" ? 1 : width();
  const box = canvas.getBoundingClientRect();
  ring.hidden = !cursor;
  ring.style.width = `${(size / map.width) * box.width}px`;
  ring.style.left = `${((cursor.x + 0.5) / map.width) * 100}%`;
  ring.style.top = `${((cursor.y + 0.5) / map.height) * 100}%`;
}

function stamp(x, y) {
  const d = width(), r = d / 2, shift = d % 2 ? 0 : 0.5;
  for (let row = Math.max(0, Math.floor(y - r)); row <= Math.min(map.height - 1, y + r); row++) {
    for (let column = Math.max(0, Math.floor(x - r)); column <= Math.min(map.width - 1, x + r); column++) {
      const dx = column - x + shift, dy = row - y + shift;
      if (dx * dx + dy * dy <= r * r) map.data[row * map.width + column] = current;
    }
  }
}

function line(from, to) {
  const steps = Math.max(1, Math.abs(to.x - from.x), Math.abs(to.y - from.y));
  for (let i = 0; i <= steps; i++) {
    stamp(Math.round(from.x + ((to.x - from.x) * i) / steps), Math.round(from.y + ((to.y - from.y) * i) / steps));
  }
}

function fill({ x, y }) {
  const from = map.data[y * map.width + x];
  if (from === current) return;
  const open = [y * map.width + x];
  while (open.length) {
    const i = open.pop(), column = i % map.width;
    if (map.data[i] !== from) continue;
    map.data[i] = current;
    if (column > 0) open.push(i - 1);
    if (column < map.width - 1) open.push(i + 1);
    if (i >= map.width) open.push(i - map.width);
    if (i < map.data.length - map.width) open.push(i + map.width);
  }
}

function before() {
  done.push(map.data.slice());
  if (done.length > DEEPEST) done.shift();
  undone = [];
}

function after(words) {
  draw();
  buttons();
  says.textContent = words;
  props.value = { labels: writeLabels(map) };
  trigger("input");
}

function buttons() {
  find(".undo").disabled = !done.length;
  find(".redo").disabled = !undone.length;
  find(".reset").disabled = !done.length && !undone.length;
}

function step(from, to, words) {
  if (!from.length) return;
  to.push(map.data);
  map.data = from.pop();
  after(words);
}

const inside = ({ x, y }) => x >= 0 && y >= 0 && x < map.width && y < map.height;

function press(place) {
  before();
  if (tool() === "fill") {
    if (inside(place)) fill(place);
    after(`Filled with ${regions[current].name}`);
    return;
  }
  stroke = place;
  line(place, place);
  draw();
}

canvas.addEventListener("pointerdown", (event) => {
  if (!map || event.button) return;
  event.preventDefault();
  canvas.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  press(pixelUnder(event, canvas, map));
});
canvas.addEventListener("pointermove", (event) => {
  if (!map) return;
  cursor = pixelUnder(event, canvas, map);
  circle();
  if (!stroke) return;
  line(stroke, cursor);
  stroke = cursor;
  draw();
});
const lift = () => {
  if (!stroke) return;
  stroke = null;
  after(`Painted ${regions[current].name}`);
};
canvas.addEventListener("pointerup", lift);
canvas.addEventListener("pointercancel", lift);
canvas.addEventListener("pointerleave", () => stroke || (ring.hidden = true));
canvas.addEventListener("blur", () => (ring.hidden = true));
canvas.addEventListener("keydown", (event) => {
  if (!map) return;
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (moves[event.key]) {
    const by = Math.max(1, map.width >> 6) * (event.shiftKey ? 8 : 1);
    cursor.x = Math.min(map.width - 1, Math.max(0, cursor.x + by * moves[event.key][0]));
    cursor.y = Math.min(map.height - 1, Math.max(0, cursor.y + by * moves[event.key][1]));
    const under = regions[map.data[cursor.y * map.width + cursor.x]];
    says.textContent = `${under ? under.name : "nothing"} at ${cursor.x}, ${cursor.y}`;
  } else if (event.key === " " || event.key === "Enter") {
    press(cursor);
    lift();
  } else if (event.key === "[" || event.key === "]") {
    find(".width").value = width() + (event.key === "]" ? 2 : -2);
  } else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
    event.shiftKey ? step(undone, done, "Redone") : step(done, undone, "Undone");
  } else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "y") {
    step(undone, done, "Redone");
  } else return;
  event.preventDefault();
  circle();
});

find(".undo").addEventListener("click", () => step(done, undone, "Undone"));
find(".redo").addEventListener("click", () => step(undone, done, "Redone"));
find(".reset").addEventListener("click", () => {
  before();
  map.data = first.slice();
  after("Reset to the mask of the face");
});
const opacity = () => (canvas.style.opacity = find(".opacity").value / 100);
find(".opacity").addEventListener("input", opacity);
opacity();

for (const region of regions) {
  const label = document.createElement("label");
  label.style.setProperty("--color", `rgb(${region.color})`);
  const radio = document.createElement("input");
  Object.assign(radio, { type: "radio", name: `${fixed.group}-region`, value: region.label, checked: region.label === current });
  radio.addEventListener("change", () => (current = region.label));
  label.append(radio, region.name);
  palette.append(label);
}
watch("value", () => props.value && props.value.photo && load(props.value));
if (props.value && props.value.photo) load(props.value);
