// Label maps as the server writes them, see ldm/data/label_text.py: HxW:COUNT*LABEL,...
function readLabels(text) {
  const [size, runs] = text.split(":");
  const [height, width] = size.split("x").map(Number);
  const data = new Uint8Array(width * height);
  let at = 0;
  for (const run of runs.split(",")) {
    const [count, label] = run.split("*").map(Number);
    data.fill(label, at, at + count);
    at += count;
  }
  return { width, height, data };
}

function writeLabels(map) {
  const runs = [];
  let start = 0;
  for (let i = 1; i <= map.data.length; i++) {
    if (i === map.data.length || map.data[i] !== map.data[start]) {
      runs.push(`${i - start}*${map.data[start]}`);
      start = i;
    }
  }
  return `${map.height}x${map.width}:${runs.join(",")}`;
}

// The pixel of the map under a pointer.
function pixelUnder(event, canvas, map) {
  const box = canvas.getBoundingClientRect();
  return {
    x: Math.floor(((event.clientX - box.left) / box.width) * map.width),
    y: Math.floor(((event.clientY - box.top) / box.height) * map.height),
  };
}
