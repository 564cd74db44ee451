(function () {
  "use strict";
  var doc = document;

  function all(selector, from) { return Array.prototype.slice.call((from || doc).querySelectorAll(selector)); }

  function button(text) {
    var made = doc.createElement("button");
    made.type = "button";
    made.textContent = text;
    return made;
  }

  /* ---- tables sort */
  var said = doc.createElement("p");
  said.className = "unseen";
  said.setAttribute("role", "status");
  doc.body.appendChild(said);

  function number(text) {
    var plain = text.replace(/\u2212/g, "-").replace(/(\d),(?=\d{3}(?!\d))/g, "$1");
    var found = /^\[?\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(?:%|,|\]|of \d|$)/i.exec(plain);
    return found ? Number(found[1]) : NaN;
  }

  function cell(row, at) {
    var text = row.cells[at] ? row.cells[at].textContent.trim() : "";
    return text === "\u2013" ? "" : text;
  }

  function parts(body) {  /* rows between two headings are sorted among themselves */
    var found = [{ head: null, rows: [] }];
    Array.prototype.forEach.call(body.rows, function (row) {
      if (row.classList.contains("group")) found.push({ head: row, rows: [] });
      else found[found.length - 1].rows.push(row);
    });
    return found;
  }

  all("table.sortable").forEach(function (table) {
    var body = table.tBodies[0], first = parts(body), at = 0;
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head) {
      var column = at, name = head.textContent, control = button(name);
      at += head.colSpan;
      head.textContent = "";
      head.appendChild(control);
      control.addEventListener("click", function () {
        var now = head.getAttribute("aria-sort");
        var next = now === "ascending" ? "descending" : now === "descending" ? "" : "ascending";
        all("th[aria-sort]", table).forEach(function (other) { other.removeAttribute("aria-sort"); });
        if (next) head.setAttribute("aria-sort", next);
        table.classList.toggle("sorted", next !== "");
        var numeric = first.every(function (part) {
          return part.rows.every(function (row) { var text = cell(row, column); return text === "" || !isNaN(number(text)); });
        });
        var sign = next === "descending" ? -1 : 1;
        first.forEach(function (part) {
          var rows = part.rows.slice();
          if (next) rows.sort(function (a, b) {
            var x = cell(a, column), y = cell(b, column);
            if (x === "" || y === "") return (x === "") - (y === "");  /* what is not known is last */
            return sign * (numeric ? number(x) - number(y) : x.localeCompare(y, "en"));
          });
          if (part.head) body.appendChild(part.head);
          rows.forEach(function (row) { body.appendChild(row); });
        });
        said.textContent = next ? "Sorted by " + name + ", " + next : "In the order of the page";
      });
    });
  });

  /* ---- figures: static ones are in the page, interactive ones are drawn when asked for */
  var dark = window.matchMedia("(prefers-color-scheme: dark)"), drawn = {};

  function held(id) { return JSON.parse(doc.getElementById(id).textContent); }

  function dressed(value, colours) {
    if (typeof value === "string") return Object.prototype.hasOwnProperty.call(colours, value) ? colours[value] : value;
    if (Array.isArray(value)) return value.map(function (item) { return dressed(item, colours); });
    if (value === null || typeof value !== "object") return value;
    var copy = {};
    Object.keys(value).forEach(function (key) { copy[key] = dressed(value[key], colours); });
    return copy;
  }

  function draw(place, name) {
    var plot = dressed(held("data-" + name), dark.matches ? held("dark") : {});
    /* only these buttons: plotly has one that would send the figure to a server */
    var buttons = [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]];
    return window.Plotly.react(place, plot.data, plot.layout, {
      responsive: true, displaylogo: false, showTips: false, plotlyServerURL: "", topojsonURL: "none", modeBarButtons: buttons
    });
  }

  function load() {
    if (window.Plotly) return;
    var script = doc.createElement("script");
    script.textContent = doc.getElementById("plotly").textContent;
    doc.head.appendChild(script);
  }

  all("figure[data-plot]").forEach(function (figure) {
    var name = figure.getAttribute("data-plot"), card = figure.querySelector(".card"), place = doc.createElement("div");
    var inner = doc.createElement("div"), bar = doc.createElement("div"), which = figure.id.replace("-", " "), control = button("Interactive");
    bar.className = "bar";
    place.className = "plot";
    place.id = "plot-" + name;
    place.appendChild(inner);
    place.hidden = true;
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", "Interactive " + which + ". " + card.getAttribute("aria-label"));
    control.setAttribute("aria-controls", place.id);
    control.setAttribute("aria-label", "Interactive version of " + which);
    bar.appendChild(control);
    figure.insertBefore(bar, card);
    figure.insertBefore(place, card);
    control.addEventListener("click", function () {
      var show = place.hidden;
      place.hidden = !show;
      card.hidden = show;
      control.textContent = show ? "Static" : "Interactive";
      control.setAttribute("aria-label", (show ? "Static" : "Interactive") + " version of " + which);
      if (!show) return;
      load();
      draw(inner, name);
      drawn[name] = inner;
    });
  });

  /* page.html#interactive shows all of them at once */
  if (location.hash === "#interactive") all("figure .bar button").forEach(function (control) { control.click(); });

  dark.addEventListener("change", function () {
    Object.keys(drawn).forEach(function (name) { draw(drawn[name], name); });
  });

  /* ---- what is folded is printed too */
  var opened = [];
  window.addEventListener("beforeprint", function () {
    opened = all("details:not([open])");
    opened.forEach(function (part) { part.open = true; });
  });
  window.addEventListener("afterprint", function () { opened.forEach(function (part) { part.open = false; }); });
})();
