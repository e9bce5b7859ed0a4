"use strict";
// Sorts and filters the table of units. The page works without it.
(() => {
  const table = document.getElementById("units-table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const text = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    const numeric = head.dataset.sort === "number";
    const key = (row) => {
      const shown = row.cells[column].textContent;
      return numeric ? (shown === "" ? -1 : Number(shown)) : shown;
    };
    const collate = new Intl.Collator("en", { numeric: true }).compare;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const compare = numeric ? (a, b) => key(a) - key(b) : (a, b) => collate(key(a), key(b));
      rows.sort((a, b) => (up ? compare(a, b) : compare(b, a)));
      body.append(...rows);
    });
  });
  const words = document.getElementById("units-filter");
  const mark = document.getElementById("units-mark");
  const count = document.getElementById("units-count");
  const place = heads.findIndex((head) => head.textContent === "notable");
  const filter = () => {
    const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = mark ? mark.value : "";
    let shown = 0;
    for (const row of rows) {
      const fits = asked.every((word) => text.get(row).includes(word));
      row.hidden = !fits || (wanted !== "" && row.cells[place].textContent !== wanted);
      if (!row.hidden) shown += 1;
    }
    count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  };
  words.addEventListener("input", filter);
  if (mark) mark.addEventListener("change", filter);
  words.closest(".filter").hidden = false;
})();
