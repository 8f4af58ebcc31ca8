const find = (selector) => element.querySelector(selector);
const image = find("img"), svg = find("svg"), marks = find(".marks"), adjust = find(".adjust");
const SVG = "http://www.w3.org/2000/svg";
let photo = { width: 1, height: 1 }, faces = [], chosen = 0, drag = null;

function show(value) {
  photo = value;
  [faces, chosen] = [value.faces.map((face) => [...face]), value.face];
  image.hidden = find(".tools").hidden = false;
  find(".empty").hidden = true;
  image.src = value.picture;
  image.alt = `Photo ${value.name}`;
  find(".name").textContent = value.name;
  svg.setAttribute("viewBox", `0 0 ${value.width} ${value.height}`);
  list();
  draw();
}

// Corners of a crop in the photo: center plus axis, turned by quarters.
function corners([x, y, right, down]) {
  return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([a, b]) => [x + a * right - b * down, y + a * down + b * right]);
}

function list() {
  marks.replaceChildren(
    ...faces.map((_, number) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = number + 1;
      button.setAttribute("aria-label", `Face ${number + 1} of ${faces.length}`);
      button.addEventListener("click", () => number !== chosen && send(number));
      button.addEventListener("keydown", (event) => adjust.checked && number === chosen && key(event));
      return button;
    })
  );
}

function draw() {
  const unit = Math.max(photo.width, photo.height) / 100;
  svg.replaceChildren();
  faces.forEach((face, number) => {
    const box = corners(face), on = number === chosen;
    const shape = document.createElementNS(SVG, "polygon");
    shape.setAttribute("points", box.map((corner) => corner.join()).join(" "));
    shape.setAttribute("class", on ? "box on" : "box");
    shape.addEventListener("pointerdown", (event) => begin(event, number, "move"));
    svg.append(shape);
    if (on && adjust.checked) {
      for (const corner of box) {
        const handle = document.createElementNS(SVG, "circle");
        Object.entries({ cx: corner[0], cy: corner[1], r: unit * 1.6, class: "handle" }).forEach(([k, v]) => handle.setAttribute(k, v));
        handle.addEventListener("pointerdown", (event) => begin(event, number, "turn"));
        svg.append(handle);
      }
    }
    const mark = marks.children[number], at = box[0];
    mark.style.left = `${Math.min(94, Math.max(0, (100 * at[0]) / photo.width))}%`;
    mark.style.top = `${Math.min(92, Math.max(0, (100 * at[1]) / photo.height))}%`;
    mark.setAttribute("aria-pressed", String(on));
  });
  svg.classList.toggle("adjusting", adjust.checked);
}

function place(event) {
  const box = svg.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * photo.width, ((event.clientY - box.top) / box.height) * photo.height];
}

function begin(event, number, kind) {
  event.preventDefault();
  if (number !== chosen) return send(number);
  if (!adjust.checked) return;
  drag = { kind, from: place(event), face: [...faces[chosen]] };
  svg.setPointerCapture(event.pointerId);
}

svg.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const [x, y] = place(event), [cx, cy, right, down] = drag.face;
  if (drag.kind === "move") {
    faces[chosen] = [within(cx + x - drag.from[0], photo.width), within(cy + y - drag.from[1], photo.height), right, down];
  } else {
    // The quotient of two complex numbers says how far the corner was turned and drawn out.
    const a = [drag.from[0] - cx, drag.from[1] - cy], b = [x - cx, y - cy], n = a[0] ** 2 + a[1] ** 2;
    const q = [(b[0] * a[0] + b[1] * a[1]) / n, (b[1] * a[0] - b[0] * a[1]) / n];
    faces[chosen] = [cx, cy, right * q[0] - down * q[1], right * q[1] + down * q[0]];
  }
  draw();
});
const within = (value, length) => Math.min(length, Math.max(0, value));
const end = () => {
  if (!drag) return;
  const moved = faces[chosen].some((value, i) => value !== drag.face[i]);
  drag = null;
  if (moved) send(chosen, faces[chosen]);
};
svg.addEventListener("pointerup", end);
svg.addEventListener("pointercancel", end);

let waiting = null;
function key(event) {
  const face = faces[chosen], by = Math.hypot(face[2], face[3]) * 0.05;
  const moves = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] };
  const turns = { "[": [Math.cos(0.05), -Math.sin(0.05)], "]": [Math.cos(0.05), Math.sin(0.05)], "+": [1.05, 0], "-": [1 / 1.05, 0] };
  if (moves[event.key]) {
    face[0] = within(face[0] + moves[event.key][0], photo.width);
    face[1] = within(face[1] + moves[event.key][1], photo.height);
  } else if (turns[event.key]) {
    const [c, s] = turns[event.key];
    [face[2], face[3]] = [face[2] * c - face[3] * s, face[2] * s + face[3] * c];
  } else return;
  event.preventDefault();
  draw();
  clearTimeout(waiting);
  waiting = setTimeout(() => send(chosen, faces[chosen]), 600);
}

function send(face, crop = null) {
  chosen = face;
  draw();
  props.value = { face, crop };
  trigger("input");
}

adjust.addEventListener("change", () => {
  find(".hint").hidden = !adjust.checked;
  draw();
});
watch("value", () => props.value && props.value.picture && show(props.value));
if (props.value && props.value.picture) show(props.value);
