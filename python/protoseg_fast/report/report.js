// Makes the tables sortable. Without it they are complete, and in the order of the page.
"use strict";
(() => {
  const said = document.getElementById("said");

  const value = (row, column) => {
    const cell = row.cells[column];
    const text = "v" in cell.dataset ? cell.dataset.v : cell.textContent.trim();
    const number = Number(text);
    return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
  };

  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), "en", { numeric: true });

  const sort = (table, head, name) => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [value(row, head.cellIndex), row]);
    rows.sort(([a], [b]) => {
      // What is unknown stays at the end, whichever way the rest goes.
      if (a === null || b === null) return (a === null) - (b === null);
      return down ? compare(b, a) : compare(a, b);
    });
    body.append(...rows.map(([, row]) => row));
    said.textContent = `Sorted by ${name}, ${down ? "descending" : "ascending"}.`;
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const head of table.tHead.querySelectorAll("th")) {
      const button = document.createElement("button");
      const name = head.textContent.trim().replace(/\s+/g, " ");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, head, name));
      head.append(button);
    }
  }
})();
