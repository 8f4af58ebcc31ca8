const find = (selector) => element.querySelector(selector);
function show(value) {
  const bar = find("progress"), text = find(".text");
  // A screen reader hears every change: of the steps only each quarter.
  const quarter = value.total ? Math.floor((4 * value.done) / value.total) : -1;
  text.textContent = value.text || "";
  if (value.state !== "busy" || quarter !== show.quarter) find(".spoken").textContent = value.text || "";
  show.quarter = quarter;
  const news = element.dataset.state !== value.state || value.at !== show.at;
  show.at = value.at;
  if (news && ["busy", "error"].includes(value.state)) {
    const top = element.getBoundingClientRect().top;
    if (top < 0 || top > innerHeight * 0.7) element.scrollIntoView({ block: "start", behavior: "smooth" });
  }
  element.dataset.state = value.state || "";
  bar.hidden = value.state !== "busy";
  if (value.total) Object.assign(bar, { max: value.total, value: value.done });
  else bar.removeAttribute("value");
}
watch("value", () => show(props.value || {}));
show(props.value || {});
