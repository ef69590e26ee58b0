//! The status page: three files that are part of the binary.

use axum::body::Body;
use axum::http::Response;

use super::answer::content;

pub(super) const HTML: &str = include_str!("page/index.html");
pub(super) const CSS: &str = include_str!("page/page.css");
pub(super) const JS: &str = include_str!("page/page.js");
pub(super) const ICON: &str = include_str!("page/icon.svg");

pub(super) async fn html() -> Response<Body> {
    content("text/html; charset=utf-8", HTML)
}

pub(super) async fn css() -> Response<Body> {
    content("text/css; charset=utf-8", CSS)
}

pub(super) async fn js() -> Response<Body> {
    content("text/javascript; charset=utf-8", JS)
}

pub(super) async fn icon() -> Response<Body> {
    content("image/svg+xml", ICON)
}
