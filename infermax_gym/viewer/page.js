"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const tip = document.getElementById("tip");

// The legend: a policy is shown or hidden in every picture at once.
const chips = all("[data-chip]").filter((chip) => chip.dataset.chip !== "all");
function show(chip, on) {
  chip.setAttribute("aria-pressed", on);
  for (const part of all(`[data-p="${chip.dataset.chip}"]`)) part.classList.toggle("off", !on);
}
const isOn = (number) => {
  const chip = chips[number];
  return !chip || chip.getAttribute("aria-pressed") === "true";
};
for (const chip of chips) {
  show(chip, isOn(chip.dataset.chip));
  chip.addEventListener("click", () => show(chip, !isOn(chip.dataset.chip)));
}
for (const button of all('[data-chip="all"]')) {
  button.addEventListener("click", () => {
    const on = chips.some((chip) => !isOn(chip.dataset.chip));
    for (const chip of chips) show(chip, on);
  });
}

// Tables sort by a click on a heading: numbers from the best end people look for, that is, ascending first.
for (const table of all("table")) {
  const heads = all("th", table);
  heads.forEach((head, place) => {
    head.firstElementChild.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.children[place].dataset.v;
      const isText = head.classList.contains("name");
      const rows = all("tbody tr", table).sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = isText ? x.localeCompare(y) : Number(x) - Number(y);
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}

// What is under the pointer. Text is only ever set as text.
function place(event) {
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = event.clientX + 16 + box.width > innerWidth ? event.clientX - 16 - box.width : event.clientX + 16;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, Math.min(event.clientY + 14, innerHeight - box.height - 8))}px`;
}
function hide() {
  tip.hidden = true;
  for (const cursor of all(".cursor")) cursor.remove();
}
const digits = (value) => {
  if (value === 0 || Number.isInteger(value)) return value.toLocaleString("en");
  const places = Math.min(8, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value)))));
  return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
};
function follow(svg, data, event) {
  const box = svg.getBoundingClientRect();
  const view = svg.viewBox.baseVal;
  const x = ((event.clientX - box.left) / box.width) * view.width;
  let nearest = 0;
  data.px.forEach((px, i) => {
    if (Math.abs(px - x) < Math.abs(data.px[nearest] - x)) nearest = i;
  });
  hide();
  const cursor = document.createElementNS(svg.namespaceURI, "path");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("d", `M${data.px[nearest]} 26V${view.height - 36}`);
  svg.append(cursor);
  const lines = [document.createElement("b")];
  lines[0].textContent = `${data.of}: ${digits(data.x[nearest])}`;
  for (const one of data.series) {
    if (!isOn(one.p) || one.y[nearest] === null || one.y[nearest] === undefined) continue;
    const line = document.createElement("div");
    const dot = document.createElement("i");
    dot.className = one.s;
    const value = document.createElement("span");
    value.textContent = digits(one.y[nearest]);
    line.append(dot, one.name, value);
    lines.push(line);
  }
  tip.replaceChildren(...lines);
  place(event);
}
for (const svg of all("svg[data-hover]")) {
  const data = JSON.parse(svg.dataset.hover);
  for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, (event) => follow(svg, data, event));
  svg.addEventListener("pointerleave", hide);
}
for (const mark of all("[data-tip]")) {
  const say = (event) => {
    tip.textContent = mark.dataset.tip;
    place(event);
  };
  for (const kind of ["pointermove", "pointerdown"]) mark.addEventListener(kind, say);
  mark.addEventListener("focus", () => {
    const box = mark.getBoundingClientRect();
    say({ clientX: box.right, clientY: box.bottom });
  });
  mark.addEventListener("pointerleave", hide);
  mark.addEventListener("blur", hide);
}
addEventListener("scroll", hide, { passive: true });

// Pictures as files: the colours as they are on the screen, written into the copy.
const KEPT = ["fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width", "stroke-dasharray", "font-size", "font-weight", "display"];
function copied(svg) {
  const copy = svg.cloneNode(true);
  const there = all("*", copy);
  all("*", svg).forEach((part, i) => {
    const style = getComputedStyle(part);
    for (const name of KEPT) there[i].style.setProperty(name, style.getPropertyValue(name));
  });
  const { width, height } = svg.viewBox.baseVal;
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.removeAttribute("data-hover");
  const page = getComputedStyle(document.documentElement);
  copy.style.background = page.getPropertyValue("--paper");
  copy.style.fontFamily = getComputedStyle(document.body).fontFamily;
  return new XMLSerializer().serializeToString(copy);
}
function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
for (const button of all("[data-save]")) {
  button.addEventListener("click", () => {
    const figure = button.closest("figure");
    const svg = figure.querySelector("svg");
    const text = copied(svg);
    const name = `${figure.dataset.name}.${button.dataset.save}`;
    if (button.dataset.save === "svg") return save(new Blob([text], { type: "image/svg+xml" }), name);
    const image = new Image();
    const scale = 3;
    image.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = svg.viewBox.baseVal.width * scale;
      canvas.height = svg.viewBox.baseVal.height * scale;
      const pen = canvas.getContext("2d");
      pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--paper");
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(blob, name), "image/png");
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  });
}
