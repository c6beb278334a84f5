"use strict";
const table = document.getElementById("all");
const body = table.tBodies[0];
const rows = [...body.rows];
const texts = rows.map((row) => row.textContent.toLowerCase());
const filter = document.getElementById("filter");

function show() {
  const wanted = filter.value.trim().toLowerCase();
  let count = 0;
  rows.forEach((row, i) => {
    row.hidden = !texts[i].includes(wanted);
    count += row.hidden ? 0 : 1;
  });
  document.getElementById("shown").textContent = `${count} of ${rows.length}`;
}

const words = new Intl.Collator("en", { numeric: true });

function compare(a, b) {
  return "value" in a.dataset ? a.dataset.value - b.dataset.value : words.compare(a.textContent, b.textContent);
}

function sortBy(header) {
  const column = header.cellIndex;
  const sign = header.ariaSort === "ascending" ? -1 : 1;
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  body.append(...[...rows].sort((a, b) => sign * compare(a.cells[column], b.cells[column])));
}

for (const header of table.tHead.rows[0].cells) {
  header.querySelector("button").addEventListener("click", () => sortBy(header));
}
filter.addEventListener("input", show);
show();
