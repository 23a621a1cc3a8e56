"use strict";
const texts = new Intl.Collator(undefined, {numeric: true});
for (const table of document.querySelectorAll("table.sorted")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead button").forEach((button) => {
    const head = button.closest("th"), at = head.cellIndex;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[at].dataset.value ?? row.cells[at].textContent.trim();
      const order = (a, b) => {
        const x = Number(key(a)), y = Number(key(b));
        return (isNaN(x) || isNaN(y) ? texts.compare(key(a), key(b)) : x - y) * (up ? 1 : -1);
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}
for (const filter of document.querySelectorAll("[data-filters]")) {
  const inside = document.getElementById(filter.dataset.filters);
  const word = filter.querySelector("input[type=search]");
  const kind = filter.querySelector("select");
  const marked = filter.querySelector("input[type=checkbox]");
  const count = filter.querySelector("output");
  const apply = () => {
    let shown = 0;
    for (const item of inside.querySelectorAll("[data-text]")) {
      const fits = (!word || item.dataset.text.includes(word.value.trim().toLowerCase()))
        && (!kind || !kind.value || item.dataset.kind === kind.value)
        && (!marked || !marked.checked || item.dataset.marked === "1");
      item.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} shown`;
  };
  filter.addEventListener("input", apply);
  filter.hidden = false;
}
