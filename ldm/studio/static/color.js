const find = (selector) => element.querySelector(selector);
const own = find("input");
let color = (props.value && props.value.color) || fixed.swatches[0].color;

function show() {
  own.value = color;
  find(".code").textContent = color;
  for (const button of find(".swatches").children) {
    button.setAttribute("aria-pressed", String(button.dataset.color === color));
  }
}

function choose(chosen) {
  color = chosen;
  show();
  props.value = { color };
  trigger("input");
}

for (const swatch of fixed.swatches) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.color = swatch.color;
  button.style.setProperty("--color", swatch.color);
  button.textContent = swatch.name;
  button.addEventListener("click", () => choose(swatch.color));
  find(".swatches").append(button);
}
own.addEventListener("input", () => choose(own.value));
show();
