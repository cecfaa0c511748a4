"use strict";
// Everything is in the page without this script, as tables and contact sheets; it adds switching, hovering and sorting.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // ---- theme
  const button = document.querySelector(".theme");
  const stored = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
                   set: (value) => { try { localStorage.setItem("theme", value); } catch { /* the choice lasts as long as the page */ } } };
  const themes = ["auto", "light", "dark"];
  const setTheme = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    stored.set(theme);
  };
  let theme = themes.includes(stored.get()) ? stored.get() : "auto";
  setTheme(theme);
  button.hidden = false;
  button.addEventListener("click", () => setTheme(theme = themes[(themes.indexOf(theme) + 1) % 3]));

  // ---- galleries
  const galleries = [];
  for (const root of all(".gallery")) {
    const exhibits = all(".exhibit", root);
    if (!exhibits.length) continue;
    const layerInput = root.querySelector(".layer");
    const epochInput = root.querySelector(".epoch");
    const layers = layerInput.dataset.layers.split(" ");
    const epochs = epochInput ? epochInput.dataset.epochs.split(" ").map(Number) : [];
    const stops = all(".stops button", root);
    const strip = root.querySelector(".strip");
    const thumbs = [];
    let current = 0;

    root.classList.add("live");
    for (const element of all(".controls, .strip, .keys, .caption", root)) element.hidden = false;
    exhibits.forEach((exhibit, index) => {
      const shared = all(".shared .plate", exhibit);
      for (const frame of all(".frame", exhibit)) {
        for (const plate of [...shared].reverse()) {
          const copy = plate.cloneNode(true);
          copy.classList.add("copy");
          frame.prepend(copy);
        }
        const label = frame.parentElement.querySelector("h4").textContent;
        const wipe = make("input", { type: "range", class: "wipe", min: 0, max: 100, step: 1, value: 50,
          "aria-label": `Wipe between photo and layer, ${label}` });
        frame.append(make("i", { class: "handle" }), wipe, make("p", { class: "absent" }));
        wipe.addEventListener("input", () => setWipe(wipe.value));
      }
      const name = exhibit.querySelector("h3").textContent;
      const thumb = make("button", { type: "button", "aria-label": name, title: name });
      const photo = exhibit.querySelector("[data-layer=photo] img");
      if (photo) thumb.append(make("img", { src: photo.src, alt: "" }));
      else thumb.textContent = index + 1;
      thumb.addEventListener("click", () => { current = index; show(); });
      thumbs.push(thumb);
      strip.append(thumb);
    });

    const setWipe = (value) => {
      root.style.setProperty("--wipe", `${value}%`);
      for (const input of all(".wipe", root)) {
        input.value = value;
        input.setAttribute("aria-valuetext", `${value} % photo`);
      }
    };

    // The newest picture that is not newer than the chosen epoch, or the oldest there is.
    const at = (plates, epoch) => {
      const earlier = plates.filter((plate) => !plate.dataset.epoch || Number(plate.dataset.epoch) <= epoch);
      return earlier[earlier.length - 1] || plates[0] || null;
    };

    const show = () => {
      const layer = layers[layerInput.value];
      const epoch = epochs.length ? epochs[epochInput.value] : Infinity;
      const title = stops[layerInput.value].textContent;
      layerInput.setAttribute("aria-valuetext", title);
      layerInput.labels[0].querySelector("output").textContent = title;
      stops.forEach((stop, index) => stop.setAttribute("aria-pressed", index === Number(layerInput.value)));
      if (epochInput) {
        epochInput.setAttribute("aria-valuetext", epoch);
        epochInput.labels[0].querySelector("output").textContent = epoch;
      }
      exhibits.forEach((exhibit, index) => {
        exhibit.classList.toggle("current", index === current);
        thumbs[index].setAttribute("aria-current", index === current);
      });
      for (const frame of all(".frame", exhibits[current])) {
        const chosen = at(all(`.plate[data-layer=${layer}]`, frame), epoch);
        for (const plate of all(".plate", frame)) {
          plate.classList.toggle("on", plate === chosen);
          plate.classList.toggle("base", plate.dataset.layer === "photo" && plate !== chosen);
        }
        frame.classList.toggle("whole", layer === "photo" || !chosen);
        frame.querySelector(".absent").textContent = chosen ? "" : `no ${title}`;
        const shown = chosen && chosen.dataset.epoch ? `epoch ${chosen.dataset.epoch}` : "";
        const range = chosen && chosen.dataset.note ? chosen.dataset.note : "";
        frame.parentElement.querySelector(".caption").textContent = [chosen ? title : `no ${title}`, shown, range].filter(Boolean).join(" · ");
      }
    };

    const step = (change) => {
      current = (current + change + exhibits.length) % exhibits.length;
      thumbs[current].scrollIntoView({ block: "nearest", inline: "nearest" });
      show();
    };
    const turn = (input, value) => {
      input.value = value;
      show();
    };
    const play = root.querySelector(".play");
    let timer = null;
    const stopPlaying = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    };
    if (play) play.addEventListener("click", () => {
      if (timer) { stopPlaying(); return; }
      play.textContent = "Stop";
      turn(epochInput, 0);
      timer = setInterval(() => {
        if (Number(epochInput.value) === epochs.length - 1) stopPlaying();
        else turn(epochInput, Number(epochInput.value) + 1);
      }, 800);
    });
    layerInput.addEventListener("input", show);
    if (epochInput) epochInput.addEventListener("input", show);
    stops.forEach((stop, index) => stop.addEventListener("click", () => turn(layerInput, index)));
    layerInput.value = Math.max(0, layers.indexOf("prediction"));
    setWipe(50);
    show();
    galleries.push({ root, key: (pressed) => {
      const number = Number(pressed);
      if (number >= 1 && number <= layers.length) turn(layerInput, number - 1);
      else if (pressed === "n") step(1);
      else if (pressed === "p") step(-1);
      else if (pressed === "[" && epochInput) turn(epochInput, Number(epochInput.value) - 1);
      else if (pressed === "]" && epochInput) turn(epochInput, Number(epochInput.value) + 1);
      else return false;
      return true;
    } });
  }

  // Keys go to the gallery that fills most of the window.
  const visible = (root) => {
    const box = root.getBoundingClientRect();
    return Math.min(box.bottom, innerHeight) - Math.max(box.top, 0);
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !galleries.length) return;
    const gallery = galleries.reduce((a, b) => (visible(b.root) > visible(a.root) ? b : a));
    if (visible(gallery.root) > 80 && gallery.key(event.key.toLowerCase())) event.preventDefault();
  });

  // ---- charts: the legend says the values under the pointer
  for (const chart of all(".chart")) {
    const svg = chart.querySelector("svg[role=img]");
    const curves = JSON.parse(chart.querySelector("script").textContent);
    const [left, top, right, bottom] = chart.dataset.box.split(" ").map(Number);
    const values = all(".legend b", chart);
    const at = chart.querySelector(".at");
    const cursor = chart.querySelector(".cursor");
    const places = [...new Set(curves.flat().map((point) => point[0]))].sort((a, b) => a - b);
    if (!places.length) continue;
    let place = places.length - 1;
    const nearest = (points, x) => points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a), points[0]);
    const draw = (x) => {
      const found = curves.map((points) => nearest(points, x));
      const closest = nearest(found.filter(Boolean), x);
      at.textContent = `epoch ${closest[2]}`;
      cursor.replaceChildren();
      const line = document.createElementNS(svg.namespaceURI, "path");
      line.setAttribute("d", `M${closest[0]} ${top} V${bottom}`);
      cursor.append(line);
      found.forEach((point, index) => {
        // A curve that ends early, or has a value every few epochs only, says nothing about far places.
        if (!point || Math.abs(point[0] - x) > (right - left) / 3) { values[index].textContent = "–"; return; }
        values[index].textContent = point[3];
        const dot = document.createElementNS(svg.namespaceURI, "circle");
        dot.setAttribute("cx", point[0]);
        dot.setAttribute("cy", point[1]);
        dot.setAttribute("r", 3.5);
        cursor.append(dot);
      });
      cursor.removeAttribute("hidden");
    };
    const leave = () => {
      cursor.setAttribute("hidden", "");
      at.textContent = "";
      values.forEach((value) => { value.textContent = value.dataset.default; });
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      draw((event.clientX - box.left) * svg.viewBox.baseVal.width / box.width);
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) draw(places[place]); });
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (event) => {
      const change = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!change) return;
      event.preventDefault();
      place = Math.min(Math.max(place + change, 0), places.length - 1);
      draw(places[place]);
    });
  }

  // ---- tables: a click on a heading sorts
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    const headings = all("th.sort", table);
    headings.forEach((heading, column) => {
      const control = make("button", { type: "button" });
      control.append(...heading.childNodes);
      heading.append(control);
      control.addEventListener("click", () => {
        const up = heading.getAttribute("aria-sort") === "descending" || (column === 0 && heading.getAttribute("aria-sort") !== "ascending");
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => {
          const cell = row.cells[column];
          if (column === 0) return cell.textContent;
          return cell.dataset.value === "" ? null : Number(cell.dataset.value);
        };
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          if (x === null || y === null) return (x === null) - (y === null);
          return (up ? 1 : -1) * (typeof x === "string" ? x.localeCompare(y) : x - y);
        });
        body.append(...rows);
      });
    });
  }
})();
