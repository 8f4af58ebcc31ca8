const find = (selector) => element.querySelector(selector);
const image = find("img"), canvas = find("canvas"), list = find(".regions"), apart = find(".apart");
const regions = fixed.regions, pickable = fixed.pickable;
let map = null, present = new Set(), chosen = new Set(), hovered = [];

// A region and its mirror image, unless left and right are separate.
const together = (label) => {
  const mirror = regions[label].mirror;
  return mirror === label || apart.checked ? [label] : [label, mirror].sort((a, b) => a - b);
};

function show(value) {
  find(".name").textContent = value.name || "";
  image.hidden = !value.picture;
  find(".empty").hidden = Boolean(value.picture);
  if (value.picture) image.src = value.picture;
  image.alt = value.name ? `${fixed.role_name}: ${value.name}` : "";
  if (!pickable || !value.labels) return;
  map = readLabels(value.labels);
  present = new Set(map.data);
  chosen = new Set((value.regions || []).map((key) => regions.findIndex((region) => region.key === key)));
  list_regions();
  draw();
}

function list_regions() {
  list.replaceChildren();
  const seen = new Set();
  for (const region of regions) {
    const group = together(region.label);
    if (seen.has(group[0])) continue;
    seen.add(group[0]);
    const button = document.createElement("button");
    button.type = "button";
    button.className = "region";
    button.dataset.label = group[0];
    button.style.setProperty("--color", `rgb(${region.color})`);
    button.textContent = group.length > 1 ? region.pair : region.name;
    if (!group.some((label) => present.has(label))) {
      button.classList.add("absent");
      button.title = "not in this face";
    }
    button.addEventListener("click", () => toggle(group));
    button.addEventListener("pointerenter", () => hover(group));
    button.addEventListener("pointerleave", () => hover([]));
    list.append(button);
  }
  mark();
}

function mark() {
  for (const button of list.children) {
    const on = together(Number(button.dataset.label)).every((label) => chosen.has(label));
    button.setAttribute("aria-pressed", String(on));
  }
}

// Chosen regions in the color of their names, with a white outline.
function draw() {
  const k = Math.max(1, Math.round(512 / map.width)), line = Math.max(1, Math.round((k * map.width) / 300));
  const [W, H] = [(canvas.width = map.width * k), (canvas.height = map.height * k)];
  const pen = canvas.getContext("2d"), picture = pen.createImageData(W, H);
  const at = (x, y) => map.data[Math.floor(y / k) * map.width + Math.floor(x / k)];
  const inside = (x, y) => x >= 0 && y >= 0 && x < W && y < H && chosen.has(at(x, y));
  for (let y = 0; y < H; y++) {
    for (let x = 0; x < W; x++) {
      const label = at(x, y), on = chosen.has(label);
      if (!on && !hovered.includes(label)) continue;
      const edge = on && !(inside(x - line, y) && inside(x + line, y) && inside(x, y - line) && inside(x, y + line));
      const color = edge || !on ? [255, 255, 255] : regions[label].color;
      picture.data.set([...color, edge ? 235 : on ? 120 : 72], 4 * (y * W + x));
    }
  }
  pen.putImageData(picture, 0, 0);
}

function hover(group) {
  if (group.join() === hovered.join()) return;
  hovered = group;
  if (map) draw();
}

function choose(labels) {
  chosen = new Set(labels);
  mark();
  draw();
  props.value = { regions: regions.filter((region) => chosen.has(region.label)).map((region) => region.key) };
  trigger("input");
}

function toggle(group) {
  const on = group.every((label) => chosen.has(label));
  choose(on ? [...chosen].filter((label) => !group.includes(label)) : [...chosen, ...group]);
}

if (pickable) {
  const under = (event) => {
    const { x, y } = pixelUnder(event, canvas, map);
    const label = map.data[y * map.width + x];
    return label < regions.length ? together(label) : [];
  };
  canvas.addEventListener("click", (event) => map && under(event).length && toggle(under(event)));
  canvas.addEventListener("pointermove", (event) => {
    if (!map || event.pointerType === "touch") return;
    const group = under(event);
    hover(group);
    canvas.title = group.length ? (group.length > 1 ? regions[group[0]].pair : regions[group[0]].name) : "";
  });
  canvas.addEventListener("pointerleave", () => hover([]));
  find(".all").addEventListener("click", () => map && choose(regions.map((region) => region.label)));
  find(".none").addEventListener("click", () => map && choose([]));
  apart.addEventListener("change", () => map && list_regions());
}
watch("value", () => props.value && (props.value.picture || props.value.empty) && show(props.value));
if (props.value) show(props.value);
