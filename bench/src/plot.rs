//! The numbers as horizontal bars with whiskers, on a logarithmic scale, as an SVG that needs nothing else.

use std::fmt::Write;

use crate::{
    groups::{Group, OBJECT_STORE, OPENDAL, OURS},
    measure::Measured,
    report::time,
};

/// The libraries in the order of the legend, with colours that also differ in brightness.
const COLOURS: [(&str, &str); 3] = [(OURS, "#1f5fa8"), (OBJECT_STORE, "#e08a1e"), (OPENDAL, "#9aa5b1")];
const WIDTH: f64 = 960.0;
/// Where the bars begin and end.
const LEFT: f64 = 230.0;
const RIGHT: f64 = 890.0;
const BAR: f64 = 9.0;

pub(crate) fn svg(groups: &[Group]) -> String {
    let all = || groups.iter().flat_map(|group| &group.rows).flat_map(|row| &row.measured);
    // Whole decades around everything that is shown.
    let lowest = all().map(|m| m.spread.0).fold(f64::INFINITY, f64::min).log10().floor();
    let highest = all().map(|m| m.spread.1).fold(1.0, f64::max).log10().ceil();
    let x = |nanoseconds: f64| LEFT + (nanoseconds.log10() - lowest) / (highest - lowest) * (RIGHT - LEFT);

    let mut bars = String::new();
    let mut y = 70.0;
    for group in groups {
        y += 22.0;
        let _ = writeln!(bars, "<text x=\"12\" y=\"{y}\" class=\"group\">{}</text>", group.name);
        y += 8.0;
        for row in &group.rows {
            let middle = y + BAR * row.measured.len() as f64 / 2.0 + 4.0;
            let label = format!("{}, {} in flight", row.operation, row.tasks);
            let _ = writeln!(bars, "<text x=\"{}\" y=\"{middle}\" class=\"row\">{label}</text>", LEFT - 8.0);
            for measured in &row.measured {
                bar(&mut bars, measured, y, x);
                y += BAR;
            }
            y += 7.0;
        }
    }

    let height = y + 20.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\">\n\
         <title>Time per operation: storage, object_store, OpenDAL</title>\n\
         <style>text {{ font-size: 11px; fill: #222 }} .group {{ font-weight: bold; font-size: 13px }} \
         .row {{ text-anchor: end }} .tick {{ text-anchor: middle; fill: #555 }} .value {{ font-size: 8.5px; fill: #555 }}\
         </style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"24\" class=\"group\">Time per operation, median and 10th to 90th percentile; shorter is better, \
         logarithmic scale</text>\n",
    );
    for (i, (library, colour)) in COLOURS.iter().enumerate() {
        let x = LEFT + 130.0 * i as f64;
        let _ = writeln!(out, "<rect x=\"{x}\" y=\"38\" width=\"12\" height=\"10\" fill=\"{colour}\"/>");
        let _ = writeln!(out, "<text x=\"{}\" y=\"47\">{library}</text>", x + 18.0);
    }
    for decade in lowest as i32..=highest as i32 {
        let (value, bottom) = (10_f64.powi(decade), height - 14.0);
        let x = x(value);
        let _ = writeln!(out, "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"76\" y2=\"{bottom}\" stroke=\"#ddd\"/>");
        let label = time(value).replace(".00", "").replace(".0", "");
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"70\" class=\"tick\">{label}</text>");
    }
    out.push_str(&bars);
    out.push_str("</svg>\n");
    out
}

fn bar(out: &mut String, measured: &Measured, y: f64, x: impl Fn(f64) -> f64) {
    let colour = COLOURS.iter().find(|(library, _)| *library == measured.library).map_or("#000", |(_, colour)| colour);
    let (low, high) = (x(measured.spread.0), x(measured.spread.1));
    let (width, height, middle) = (x(measured.median) - LEFT, BAR - 1.0, y + BAR / 2.0 - 0.5);
    let _ = writeln!(out, "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>");
    let (top, bottom) = (middle - 2.5, middle + 2.5);
    let _ = writeln!(
        out,
        "<path d=\"M{low:.1} {top}V{bottom}M{high:.1} {top}V{bottom}M{low:.1} {middle}H{high:.1}\" stroke=\"#000\" \
         stroke-width=\"0.8\"/>",
    );
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{}\" class=\"value\">{}</text>",
        high + 4.0,
        y + 7.0,
        time(measured.median)
    );
}
