() => {
  const KEYS = [
    ["Ctrl+Enter", "apply the edit, or generate"],
    ["Escape", "cancel"],
    ["Ctrl+Z, Ctrl+Shift+Z", "undo and redo an edit of the photo"],
    ["1 to 9", "choose a face of the photo"],
    ["Arrows", "next tab or item; on a crop or label map: move"],
    ["+ and -, [ and ]", "on the number of a face while its crop is adjusted: resize, rotate"],
    ["Space, [ and ]", "on the label map: paint, change the brush"],
    ["?", "this list"],
  ];
  const dialog = document.createElement("dialog");
  dialog.id = "shortcuts";
  dialog.setAttribute("aria-label", "Keyboard shortcuts");
  const title = document.createElement("h2"), list = document.createElement("dl"), close = document.createElement("button");
  title.textContent = "Keyboard shortcuts";
  for (const [key, meaning] of KEYS) {
    const term = document.createElement("dt"), text = document.createElement("dd");
    [term.textContent, text.textContent] = [key, meaning];
    list.append(term, text);
  }
  close.textContent = "Close";
  close.addEventListener("click", () => dialog.close());
  dialog.append(title, list, close);
  document.body.append(dialog);

  const shown = (selector) => [...document.querySelectorAll(selector)].find((one) => one.offsetParent && !one.disabled);
  document.addEventListener("click", (event) => event.target.closest("#shortcuts-open") && dialog.showModal());
  document.addEventListener("keydown", (event) => {
    const control = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
    const typing = event.target.closest("input:not([type=checkbox], [type=radio], [type=range]), textarea");
    const painting = event.target.closest("canvas.labels");
    let button = null;
    if (control && key === "enter") button = shown("#photo-apply, #make");
    else if (key === "escape" && !dialog.open) button = shown("#photo-cancel, #cancel");
    else if (control && key === "z" && !typing && !painting) button = shown(event.shiftKey ? "#photo-redo" : "#photo-undo");
    else if (!control && !event.altKey && !typing && event.key === "?") return void (dialog.open || dialog.showModal());
    else if (!control && !event.altKey && !typing && /^[1-9]$/.test(key)) button = shown(`#photo-faces .marks button:nth-child(${key})`);
    if (!button) return;
    event.preventDefault();
    button.click();
  });
}
