const find = (selector) => element.querySelector(selector);
const slider = find("input"), after = find(".after"), before = find(".before");

function show(value) {
  const both = Boolean(value.before && value.after);
  find(".empty").hidden = Boolean(value.after);
  find(".stage").hidden = !value.after;
  if (value.after) after.src = value.after;
  before.hidden = !both;
  if (both) before.src = value.before;
  find(".slide").hidden = !both || value.live;
  find(".so-far").hidden = !value.live;
  element.classList.toggle("live", Boolean(value.live));
  if (value.live) slider.value = 0;
  else if (both && value.is_new) slider.value = 50;
  after.alt = value.live ? "preview" : value.title || "";
  find(".title").textContent = value.title || "";
  const link = find("a");
  link.hidden = !value.file;
  if (value.file) Object.assign(link, { href: value.after, download: value.file });
  find(".note").textContent = (value.file && value.note) || "";
  move();
}

function move() {
  before.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
  find(".edge").style.left = `${slider.value}%`;
  find(".edge").hidden = before.hidden || slider.value == 0 || slider.value == 100;
  slider.setAttribute("aria-valuetext", `${slider.value} % before`);
}
slider.addEventListener("input", move);
let dragged = false;
const drag = (event) => {
  const box = find(".stage").getBoundingClientRect();
  slider.value = Math.round(((event.clientX - box.left) / box.width) * 100);
  move();
};
find(".stage").addEventListener("pointerdown", (event) => {
  if (before.hidden) return;
  dragged = true;
  event.currentTarget.setPointerCapture(event.pointerId);
  drag(event);
});
find(".stage").addEventListener("pointermove", (event) => dragged && drag(event));
for (const end of ["pointerup", "pointercancel"]) find(".stage").addEventListener(end, () => (dragged = false));
watch("value", () => show(props.value || {}));
show(props.value || {});
