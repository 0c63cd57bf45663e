"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const compare = (a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = x - y || 0;
        const text = isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, { numeric: true }) : order;
        return down ? -text : text;
      };
      body.append(...[...body.rows].sort(compare));
      for (const row of body.rows) row.classList.remove("first");
    });
  });
}
const players = [...document.querySelectorAll("audio")];
for (const player of players)
  player.addEventListener("play", () => players.forEach((other) => other !== player && other.pause()));
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const one of closed) one.open = true;
});
addEventListener("afterprint", () => closed.forEach((one) => { one.open = false; }));
