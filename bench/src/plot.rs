//! Plots as SVG.

use crate::Results;
use crate::cases::TITLES;
use crate::growth::Series;
use crate::lab::{FLOOR, Sample};
use crate::stats::median;
use std::fmt::Write;

const COLOURS: &[(&str, &str)] = &[("orlop", "#0b6e99"), ("crun", "#e08e0b"), ("runc", "#9b2d30"), (FLOOR, "#555555")];
const FONT: &str = "font-family=\"sans-serif\" font-size=\"12\"";

fn colour(name: &str) -> &'static str {
    COLOURS.iter().find(|(known, _)| *known == name).map_or("#888888", |(_, colour)| colour)
}

/// An SVG of this size around its content.
fn svg(width: f64, height: f64, title: &str, content: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" {FONT}>\n\
         <title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{title}</text>\n{content}</svg>\n"
    )
}

fn legend(names: &[&str], mut x: f64, y: f64) -> String {
    let mut out = String::new();
    for name in names {
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"{y}\">{name}</text>",
            y - 9.0,
            colour(name),
            x + 16.0
        );
        x += 32.0 + 7.5 * name.len() as f64;
    }
    out
}

/// Bars of the medians of a value of all cases; shorter is better.
pub fn bars(results: &Results, title: &str, value: fn(&Sample) -> f64) -> String {
    const LEFT: f64 = 225.0;
    const WIDTH: f64 = 560.0;
    const BAR: f64 = 13.0;
    let names: Vec<&str> = COLOURS.iter().map(|(name, _)| *name).collect();
    let groups: Vec<(&str, Vec<(&str, f64)>)> = TITLES
        .iter()
        .filter_map(|(case, title)| {
            let of_case = results.samples.get(case)?;
            let of =
                |name: &&'static str| Some((*name, median(&of_case.get(*name)?.iter().map(value).collect::<Vec<_>>())));
            Some((*title, COLOURS.iter().map(|(name, _)| name).filter_map(of).collect()))
        })
        .collect();
    let most = groups.iter().flat_map(|(_, bars)| bars).map(|(_, value)| *value).fold(1.0, f64::max);
    let (mut out, mut y) = (legend(&names, LEFT, 46.0), 62.0);
    for (title, bars) in &groups {
        let middle = y + BAR * bars.len() as f64 / 2.0 + 4.0;
        let _ = writeln!(out, "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{title}</text>", LEFT - 8.0);
        for (name, value) in bars {
            let width = value / most * WIDTH;
            let _ = writeln!(
                out,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{}\" font-size=\"10\">{value:.1}</text>",
                BAR - 2.0,
                colour(name),
                LEFT + width + 4.0,
                y + 9.0
            );
            y += BAR;
        }
        y += 10.0;
    }
    svg(LEFT + WIDTH + 60.0, y + 6.0, title, &out)
}

/// A panel for each series, both axes logarithmic: CPU time over what grows.
pub fn growth(series: &[Series]) -> String {
    const PANEL: (f64, f64) = (310.0, 230.0);
    const COLUMNS: usize = 3;
    let mut out = legend(&COLOURS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), 12.0, 46.0);
    for (index, one) in series.iter().enumerate() {
        let (column, row) = (index % COLUMNS, index / COLUMNS);
        let _ =
            writeln!(out, "<g transform=\"translate({} {})\">", column as f64 * PANEL.0, 60.0 + row as f64 * PANEL.1);
        panel(&mut out, one, PANEL.0, PANEL.1);
        out.push_str("</g>\n");
    }
    let rows = series.len().div_ceil(COLUMNS) as f64;
    svg(
        COLUMNS as f64 * PANEL.0 + 12.0,
        66.0 + rows * PANEL.1,
        "How CPU time (ms) grows with a number; both axes are logarithmic",
        &out,
    )
}

fn panel(out: &mut String, series: &Series, width: f64, height: f64) {
    let (left, right, top, bottom) = (48.0, width - 10.0, 28.0, height - 30.0);
    let points = || series.lines.values().flatten().filter(|point| point.cpu > 0.0);
    // Whole decades, so that a slope looks the same in every panel of as many.
    let decades = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0))
    };
    let (x0, x1) = decades(&mut points().map(|point| point.n as f64));
    let (y0, y1) = decades(&mut points().map(|point| point.cpu));
    let x = |n: f64| left + (n.log10() - x0) / (x1 - x0) * (right - left);
    let y = |cpu: f64| bottom - (cpu.log10() - y0) / (y1 - y0) * (bottom - top);
    let _ = writeln!(out, "<text x=\"{left}\" y=\"{}\">{}</text>", top - 10.0, series.name);
    for decade in x0 as i32..=x1 as i32 {
        let (at, n) = (x(10_f64.powi(decade)), 10_f64.powi(decade));
        let _ = writeln!(
            out,
            "<line x1=\"{at}\" y1=\"{top}\" x2=\"{at}\" y2=\"{bottom}\" stroke=\"#ddd\"/><text x=\"{at}\" y=\"{}\" text-anchor=\"middle\" font-size=\"10\">{n}</text>",
            bottom + 14.0
        );
    }
    for decade in y0 as i32..=y1 as i32 {
        let (at, cpu) = (y(10_f64.powi(decade)), 10_f64.powi(decade));
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" y1=\"{at}\" x2=\"{right}\" y2=\"{at}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\" font-size=\"10\">{cpu}</text>",
            left - 5.0,
            at + 4.0
        );
    }
    for (name, line) in &series.lines {
        let shown: Vec<String> =
            line.iter().filter(|p| p.cpu > 0.0).map(|p| format!("{:.1},{:.1}", x(p.n as f64), y(p.cpu))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
            shown.join(" "),
            colour(name)
        );
        for point in &shown {
            let (cx, cy) = point.split_once(',').unwrap_or_default();
            let _ = writeln!(out, "<circle cx=\"{cx}\" cy=\"{cy}\" r=\"3\" fill=\"{}\"/>", colour(name));
        }
    }
}
