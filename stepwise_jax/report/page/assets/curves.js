"use strict";
// Draws the curves of a page with uPlot, in place of their picture, which stays where this script cannot run.
(() => {
  const heightOf = panel => (panel.percent ? 300 : 210);
  const HINT = "Move over a plot for values, drag to zoom in, double-click for the whole run; click a name to hide its curve.";
  const DASHES = [[], [8, 4], [10, 3, 2, 3], [2, 3]];

  const dashOf = line => Math.floor(line.color / line.palette) % DASHES.length;
  const markClass = line => `mark c${line.color % line.palette} d${dashOf(line)}`;
  const color = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const lineColor = line => color(`c${line.color % line.palette}`);

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text) made.textContent = text;
    return made;
  };

  const short = value => {
    for (const [size, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
      if (Math.abs(value) >= size) return `${+(value / size).toPrecision(4)}${unit}`;
    }
    const rounded = +value.toPrecision(4);
    return value !== 0 && Math.abs(value) < 1e-3 ? rounded.toExponential() : `${rounded}`;
  };
  const format = (panel, value) => {
    if (panel.percent) return `${value.toFixed(2)} %`;
    return Number.isInteger(value) ? value.toLocaleString("en") : `${+value.toPrecision(4)}`;
  };

  // A quantity that is constant during an epoch: coinciding lines are drawn side by side.
  const steppedPaths = shift => {
    const build = uPlot.paths.stepped({ align: -1 });
    return (plot, index, first, last) => {
      const paths = build(plot, index, first, last);
      if (!paths || !shift) return paths;
      const stroke = new Path2D();
      stroke.addPath(paths.stroke, new DOMMatrix().translate(0, shift * devicePixelRatio));
      return { ...paths, stroke };
    };
  };
  const shiftOf = (place, count) => (place - (count - 1) / 2) * Math.min(3, 18 / count);

  // The lines of a panel: for each run its fields, and the lowest and the highest seed of the first field.
  const panelSeries = (panel, lines) => lines.flatMap((line, place) => {
    const of = field => line.values[field] || line.epoch.map(() => null);
    const drawn = panel.fields.map((field, order) => ({ line, place, field, values: of(field), thin: order > 0 }));
    const [first] = panel.fields;
    for (const [edge, rows] of [["low", line.low], ["high", line.high]]) {
      if (rows && rows[first]) drawn.push({ line, place, field: first, values: rows[first], edge });
    }
    return drawn;
  });

  const seriesOptions = (panel, each, count) => ({
    label: each.line.name,
    scale: "y",
    spanGaps: true,
    stroke: () => (each.edge ? "transparent" : lineColor(each.line) + (each.thin ? "a0" : "")),
    width: each.edge ? 0 : each.thin ? 1 : 2,
    dash: DASHES[dashOf(each.line)],
    points: { show: each.values.filter(value => value !== null).length === 1 && !each.edge },
    ...(panel.stepped ? { paths: steppedPaths(shiftOf(each.place, count)) } : {}),
  });

  const bandsOf = series => series.flatMap((each, index) => each.edge !== "high" ? [] : [{
    series: [index + 1, index],
    fill: () => `${lineColor(each.line)}2e`,
  }]);

  const valueRange = (panel, view) => (plot, low, high) => {
    if (low === null) return [0, 1];
    if (panel.log) return [low / 1.25, high * 1.25];
    if (!view.zoom && panel.range) return panel.range;
    const margin = 0.06 * (high - low || Math.abs(high) || 1);
    return [panel.stepped ? 0 : low - margin, panel.percent ? Math.min(high + margin, 100.4) : high + margin];
  };

  // The nearest of a line's values, which may lie between those of other lines; none after its last one.
  const nearest = (values, index, forwards) => {
    if (values.findLastIndex(value => value != null) < index) return null;
    for (let step = 0; step < values.length; step += 1) {
      if (values[index + step] != null) return index + step;
      if (!forwards && values[index - step] != null) return index - step;
    }
    return null;
  };

  // Stages are the same for all lines of most pages: then they have bands and names, otherwise lines.
  const drawStages = (lines, view) => plot => {
    const { ctx, bbox } = plot;
    const edges = line => [0, ...line.stages.map(stage => stage[view.axis])];
    const same = new Set(lines.map(line => edges(line).join())).size === 1;
    const at = value => plot.valToPos(value, "x", true);
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.fillStyle = color("line");
    const inner = same ? [] : new Set(lines.flatMap(line => edges(line).slice(1, -1)));
    for (const edge of inner) ctx.fillRect(at(edge), bbox.top, devicePixelRatio, bbox.height);
    if (same) nameStages(plot, lines[0].stages, edges(lines[0]).map(at));
    ctx.restore();
  };
  const nameStages = (plot, stages, positions) => {
    const { ctx, bbox } = plot;
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textAlign = "center";
    stages.forEach((stage, index) => {
      const [left, right] = positions.slice(index, index + 2);
      ctx.fillStyle = color("band");
      if (index % 2 === 0) ctx.fillRect(left, bbox.top, right - left, bbox.height);
      ctx.fillStyle = color("ink");
      if (ctx.measureText(stage.name).width < right - left) {
        ctx.fillText(stage.name, (left + right) / 2, bbox.top + 12 * devicePixelRatio);
      }
    });
  };

  // One row for each visible line: its name, its value, and the range over its seeds.
  const tipRows = (panel, series, plot) => {
    const shown = series.map((each, index) => ({ ...each, at: plot.cursor.idxs[index + 1], index: index + 1 }))
      .filter(each => plot.series[each.index].show && plot.data[each.index][each.at] != null);
    const value = each => format(panel, plot.data[each.index][each.at]);
    return shown.filter(each => !each.edge).map(each => {
      const edges = shown.filter(other => other.edge && other.line === each.line && other.field === each.field);
      const range = edges.length ? ` (${edges.map(value).join(" to ")})` : "";
      const row = element("tr"), name = element("td");
      name.append(element("i", markClass(each.line)), each.line.name + (each.thin ? ", training" : ""));
      row.append(name, element("td", "", value(each) + range));
      return row;
    });
  };

  const fillTip = (tip, panel, series, view, plot) => {
    const { left, top, idx } = plot.cursor;
    tip.hidden = idx == null || left < 0 || view.hovered !== plot;
    if (tip.hidden) return;
    const at = plot.data[0][idx], table = element("table");
    table.append(...tipRows(panel, series, plot));
    tip.replaceChildren(view.axis === "epoch" ? `epoch ${at}` : `${at.toLocaleString("en")} samples fed`, table);
    const right = left + 24 + tip.offsetWidth > plot.over.clientWidth;
    tip.style.left = `${Math.max(0, right ? left - tip.offsetWidth - 12 : left + 16)}px`;
    tip.style.top = `${Math.min(top + 12, Math.max(0, plot.over.clientHeight - tip.offsetHeight))}px`;
  };

  const tooltip = (panel, series, view) => {
    const tip = element("div", "tip");
    tip.hidden = true;
    const init = plot => {
      plot.over.append(tip);
      plot.over.addEventListener("mouseenter", () => { view.hovered = plot; });
      plot.over.addEventListener("mouseleave", () => { view.hovered = null; tip.hidden = true; });
    };
    return { hooks: { init, setCursor: plot => fillTip(tip, panel, series, view, plot) } };
  };

  const isPowerOfTen = value => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-6;

  // Over several powers of ten only those have a label: the lowest tick of a logarithmic axis may be any value.
  const labelTicks = (ticks, log) => {
    const powers = log && ticks.filter(tick => tick !== null && isPowerOfTen(tick)).length > 1;
    return ticks.map(tick => tick === null || (powers && !isPowerOfTen(tick)) ? "" : short(tick));
  };

  const WHOLE_STEPS = [...Array(12).keys()].flatMap(power => [1, 2, 5].map(digit => digit * 10 ** power));

  const axisOptions = (label, log) => ({
    stroke: () => color("ink"),
    grid: { stroke: () => color("line"), width: 0.5 },
    ticks: { stroke: () => color("line"), width: 1, size: 4 },
    font: "12px system-ui, sans-serif",
    // Epochs and samples are whole numbers.
    ...(label ? { label, labelFont: "12px system-ui, sans-serif", labelSize: 18, size: 30, incrs: WHOLE_STEPS } : { size: 62 }),
    values: (plot, ticks) => labelTicks(ticks, log),
  });

  const plotOptions = (panel, series, lines, view, width) => ({
    width,
    height: heightOf(panel),
    series: [{}, ...series.map(each => seriesOptions(panel, each, lines.length))],
    bands: bandsOf(series),
    legend: { show: false },
    scales: {
      x: { time: false, range: () => view.zoom || [0, view.length()] },
      y: { distr: panel.log ? 3 : 1, range: valueRange(panel, view) },
    },
    axes: [axisOptions(view.label(), false), axisOptions("", panel.log)],
    cursor: {
      sync: { key: "curves" },
      drag: { x: true, y: false, setScale: false },
      y: false,
      dataIdx: (plot, index, at) => (index === 0 ? at : nearest(plot.data[index], at, panel.stepped)),
    },
    hooks: {
      drawClear: [drawStages(lines, view)],
      setSelect: [plot => {
        // The other plots show the same selection.
        if (plot.select.width > 4 && view.hovered === plot) {
          view.show([plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x")]);
        }
      }],
    },
    plugins: [tooltip(panel, series, view)],
  });

  const makePlot = (panel, lines, view, holder) => {
    const series = panelSeries(panel, lines), width = holder.clientWidth || 480;
    // Before the first epoch, a constant quantity has its first value, and a measured one none.
    const table = each => [
      [0, ...each.line[view.axis]],
      [panel.stepped ? each.values[0] : null, ...each.values],
    ];
    const plot = new uPlot(plotOptions(panel, series, lines, view, width), uPlot.join(series.map(table)), holder);
    // uPlot's own double click would show the range of the data, not that of the plan.
    plot.over.addEventListener("dblclick", () => view.show(null));
    return { plot, series, holder, height: heightOf(panel) };
  };

  const toggle = (text, pressed, act) => {
    const button = element("button", "", text);
    button.type = "button";
    button.setAttribute("aria-pressed", pressed);
    button.addEventListener("click", () => act(button));
    return button;
  };

  const axisButtons = (axes, view, redraw) => {
    const group = element("span", "group"), buttons = Object.entries(axes).map(([axis, label]) => toggle(`by ${label}`, axis === view.axis, button => {
      view.axis = axis;
      view.zoom = null;
      buttons.forEach(each => each.setAttribute("aria-pressed", each === button));
      redraw();
    }));
    group.append(...buttons);
    return group;
  };

  const lineButtons = (lines, hidden, apply) => {
    const group = element("span", "group");
    group.append(...lines.map(line => {
      const button = toggle("", true, () => {
        hidden.has(line) ? hidden.delete(line) : hidden.add(line);
        button.setAttribute("aria-pressed", !hidden.has(line));
        apply();
      });
      const mark = element("i", markClass(line));
      button.className = "line";
      button.title = line.title;
      button.append(mark, line.label);
      return button;
    }));
    return group;
  };

  // What the plots of a page have in common: their axis, and the part of it that they show.
  const makeView = (axes, lines, drawn) => ({
    axis: "epoch",
    zoom: null,
    hovered: null,
    label() { return axes[this.axis]; },
    length() { return Math.max(...lines.map(line => line.stages.at(-1)[this.axis])); },
    show(range) {
      this.zoom = range;
      for (const { plot } of drawn) {
        plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        plot.setData(plot.data);
      }
    },
  });

  const hideLines = (drawn, hidden) => drawn.forEach(({ plot, series }) => plot.batch(() => {
    series.forEach((each, index) => {
      const show = !hidden.has(each.line);
      if (plot.series[index + 1].show !== show) plot.setSeries(index + 1, { show });
    });
  }));

  const panelPlace = panel => {
    const place = element("div", "plot"), thin = panel.fields.length > 1 ? "; thin: training" : "";
    place.append(element("h3", "", panel.label + thin));
    return place;
  };

  const start = holder => {
    const { axes, panels, lines } = JSON.parse(holder.querySelector("script").textContent);
    const hidden = new Set(), drawn = [], view = makeView(axes, lines, drawn);
    const places = panels.map(panelPlace), plots = element("div", "plots"), controls = element("div", "controls");
    const apply = () => hideLines(drawn, hidden);
    const redraw = () => {
      drawn.splice(0).forEach(({ plot }) => plot.destroy());
      panels.forEach((panel, index) => drawn.push(makePlot(panel, lines, view, places[index])));
      apply();
    };
    const whole = toggle("whole run", false, () => view.show(null));
    whole.removeAttribute("aria-pressed");
    controls.append(axisButtons(axes, view, redraw), lineButtons(lines, hidden, apply), whole);
    plots.append(...places);
    holder.append(element("p", "", HINT), controls, plots);
    redraw();
    holder.querySelector("figure").hidden = true;
    new ResizeObserver(() => drawn.forEach(({ plot, holder: place, height }) => {
      if (place.clientWidth !== plot.width) plot.setSize({ width: place.clientWidth, height });
    })).observe(plots);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  };

  document.querySelectorAll(".curves").forEach(start);
})();
