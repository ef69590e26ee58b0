//! Plots as SVG: lines over two axes, each linear or logarithmic.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 52.0;
const COLOURS: [&str; 4] = ["#0b6e99", "#c0392b", "#2e8b57", "#8e44ad"];

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    pub label: String,
    pub logarithmic: bool,
}

/// A named line.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// A plot. Points that are not above 0 are left out on a logarithmic axis.
pub fn plot(title: &str, x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let points = lines.iter().flat_map(|line| &line.points);
    let xs = Scale::new(points.clone().map(|point| point.0), x, LEFT, WIDTH - RIGHT);
    let ys = Scale::new(points.map(|point| point.1), y, HEIGHT - BOTTOM, TOP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    text(&mut out, WIDTH / 2.0, 22.0, "middle", title, 15);
    text(
        &mut out,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 12.0,
        "middle",
        &x.label,
        12,
    );
    let _ = writeln!(
        out,
        "<text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        (TOP + HEIGHT - BOTTOM) / 2.0,
        escaped(&y.label)
    );
    for tick in xs.ticks() {
        let at = xs.place(tick);
        line(&mut out, (at, TOP), (at, HEIGHT - BOTTOM));
        text(
            &mut out,
            at,
            HEIGHT - BOTTOM + 18.0,
            "middle",
            &short(tick),
            12,
        );
    }
    for tick in ys.ticks() {
        let at = ys.place(tick);
        line(&mut out, (LEFT, at), (WIDTH - RIGHT, at));
        text(&mut out, LEFT - 8.0, at + 4.0, "end", &short(tick), 12);
    }
    for (number, drawn) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let places: Vec<_> = drawn
            .points
            .iter()
            .filter(|point| xs.holds(point.0) && ys.holds(point.1))
            .map(|point| (xs.place(point.0), ys.place(point.1)))
            .collect();
        let path: Vec<_> = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        if places.len() <= 20 {
            for (x, y) in &places {
                let _ = writeln!(
                    out,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"
                );
            }
        }
        let at = TOP + 14.0 + 18.0 * number as f64;
        let _ = writeln!(
            out,
            "<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"4\" fill=\"{colour}\"/>",
            WIDTH - RIGHT + 12.0,
            at - 6.0
        );
        text(&mut out, WIDTH - RIGHT + 30.0, at, "start", &drawn.name, 12);
    }
    out.push_str("</svg>\n");
    out
}

/// From values to places on the page.
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(values: impl Iterator<Item = f64>, axis: &Axis, from: f64, to: f64) -> Self {
        let logarithmic = axis.logarithmic;
        let values: Vec<f64> = values
            .filter(|value| !logarithmic || *value > 0.0)
            .collect();
        let (mut low, mut high) = values
            .iter()
            .fold((f64::MAX, f64::MIN), |(low, high), &value| {
                (low.min(value), high.max(value))
            });
        if values.is_empty() {
            (low, high) = (1.0, 10.0);
        }
        if logarithmic {
            low = 10f64.powf(low.log10().floor());
            high = 10f64.powf(high.log10().ceil()).max(low * 10.0);
        } else {
            let step = nice(high.max(f64::MIN_POSITIVE));
            (low, high) = (0.0, (high / step).ceil() * step);
        }
        Self {
            low,
            high,
            logarithmic,
            from,
            to,
        }
    }

    fn holds(&self, value: f64) -> bool {
        !self.logarithmic || value > 0.0
    }

    fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        let mut tick = self.low;
        let step = nice(self.high);
        while tick <= self.high * 1.000_001 {
            ticks.push(tick);
            tick = if self.logarithmic {
                tick * 10.0
            } else {
                tick + step
            };
        }
        ticks
    }
}

/// A round step that gives about five ticks up to `high`.
fn nice(high: f64) -> f64 {
    let rough = high / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(power)
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str, size: u32) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{}</text>",
        escaped(text)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// 1e6 as `1M`.
fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        1e9.. => (value / 1e9, "G"),
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}
