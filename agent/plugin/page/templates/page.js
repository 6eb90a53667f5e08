"use strict";
(function () {
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (one) { one.open = true; });
  });
  var table = document.getElementById("nodes-table");
  if (!table) { return; }
  var body = table.tBodies[0];
  var rows = Array.from(body.rows);
  var tools = document.createElement("div");
  tools.className = "tools";
  tools.setAttribute("role", "search");

  function labelled(text, control) {
    var label = document.createElement("label");
    label.append(text, control);
    tools.append(label);
    return control;
  }
  var filter = labelled("Filter the nodes below", document.createElement("input"));
  filter.type = "search";
  var choice = labelled("Status", document.createElement("select"));
  var words = new Set(rows.map(function (row) { return row.dataset.status; }));
  [""].concat(Array.from(words)).forEach(function (word) { choice.append(new Option(word || "all", word)); });
  var shown = document.createElement("output");
  shown.setAttribute("aria-live", "polite");
  tools.append(shown);

  function show() {
    var query = filter.value.trim().toLowerCase().split(/\s+/);
    var number = 0;
    rows.forEach(function (row) {
      var text = row.textContent.toLowerCase();
      var fits = query.every(function (word) { return text.includes(word); });
      fits = fits && (!choice.value || row.dataset.status === choice.value);
      row.hidden = !fits;
      number += fits ? 1 : 0;
    });
    shown.textContent = number === rows.length ? "" : number + " of " + rows.length + " shown";
  }
  filter.addEventListener("input", show);
  choice.addEventListener("change", show);

  Array.from(table.tHead.rows[0].cells).forEach(function (head, column) {
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.title = "Sort by " + head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", function () {
      var down = head.getAttribute("aria-sort") === "ascending";
      Array.from(head.parentNode.cells).forEach(function (one) { one.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      function key(row) {
        var cell = row.cells[column];
        return cell.dataset.sort || cell.textContent;
      }
      rows.sort(function (one, other) {
        return key(one).localeCompare(key(other), "en", { numeric: true }) * (down ? -1 : 1);
      });
      body.append.apply(body, rows);
    });
  });
  table.before(tools);
})();
