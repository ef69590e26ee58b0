//! The pages: one shell of HTML, a style sheet and JavaScript modules, all part of the binary. Each
//! page has an address of its own and is the same shell; `main.js` draws what the address names.

use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{Response, StatusCode};

use super::answer::{Failure, content};

pub(super) const HTML: &str = include_str!("page/index.html");

/// Stands in the shell for the way up to the root, so that the page works below a proxy's prefix.
const ROOT: &str = "{root}";

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// What the shell loads: name, type, text.
pub(super) const ASSETS: &[(&str, &str, &str)] = &[
    ("icon.svg", SVG, include_str!("page/icon.svg")),
    ("page.css", CSS, include_str!("page/page.css")),
    ("main.js", JS, include_str!("page/main.js")),
    ("dom.js", JS, include_str!("page/dom.js")),
    ("format.js", JS, include_str!("page/format.js")),
    ("api.js", JS, include_str!("page/api.js")),
    ("live.js", JS, include_str!("page/live.js")),
    ("parts.js", JS, include_str!("page/parts.js")),
    ("chart.js", JS, include_str!("page/chart.js")),
    ("actions.js", JS, include_str!("page/actions.js")),
    ("overview.js", JS, include_str!("page/overview.js")),
    ("filters.js", JS, include_str!("page/filters.js")),
    ("deliveries.js", JS, include_str!("page/deliveries.js")),
    ("delivery.js", JS, include_str!("page/delivery.js")),
    ("schedules.js", JS, include_str!("page/schedules.js")),
    ("destinations.js", JS, include_str!("page/destinations.js")),
    ("letters.js", JS, include_str!("page/letters.js")),
    ("rejected.js", JS, include_str!("page/rejected.js")),
    (
        "configuration.js",
        JS,
        include_str!("page/configuration.js"),
    ),
    ("audit.js", JS, include_str!("page/audit.js")),
    ("failed.js", JS, include_str!("page/failed.js")),
    ("people.js", JS, include_str!("page/people.js")),
];

/// The shell, for an address at the root.
pub(super) async fn html() -> Response<Body> {
    content("text/html; charset=utf-8", HTML.replace(ROOT, "./"))
}

/// The shell, for an address one level below.
pub(super) async fn html_below() -> Response<Body> {
    content("text/html; charset=utf-8", HTML.replace(ROOT, "../"))
}

/// `GET /assets/{file}`.
pub(super) async fn asset(
    file: Result<Path<String>, PathRejection>,
) -> Result<Response<Body>, Failure> {
    let name = file.map(|Path(name)| name).unwrap_or_default();
    let found = ASSETS.iter().find(|(asset, ..)| *asset == name);
    let none = || Failure::new(StatusCode::NOT_FOUND, "There is nothing at this address.");
    let (_, kind, text) = found.ok_or_else(none)?;
    Ok(content(kind, *text))
}
