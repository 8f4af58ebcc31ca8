const find = (selector) => element.querySelector(selector);
const slider = find("input"), strip = find(".strip"), big = find(".frame");
let frames = [];

function show(value) {
  frames = value.frames || [];
  element.hidden = !frames.length;
  if (!frames.length) return;
  slider.max = frames.length - 1;
  slider.value = frames.length - 1;
  strip.replaceChildren(
    ...frames.map((frame, number) => {
      const button = document.createElement("button"), image = document.createElement("img");
      button.type = "button";
      image.src = frame;
      image.alt = `frame ${number + 1} of ${frames.length}`;
      button.append(image);
      button.addEventListener("click", () => {
        slider.value = number;
        move();
      });
      return button;
    })
  );
  for (const kind of ["gif", "webp"]) Object.assign(find(`a.${kind}`), { href: value[kind], download: `${value.name}.${kind}` });
  move();
}

function move() {
  const at = Number(slider.value);
  big.src = frames[at];
  big.alt = `${Math.round((100 * at) / (frames.length - 1))} % of the way`;
  slider.setAttribute("aria-valuetext", big.alt);
  [...strip.children].forEach((button, number) => button.setAttribute("aria-pressed", String(number === at)));
}
slider.addEventListener("input", move);
watch("value", () => show(props.value || {}));
show(props.value || {});
