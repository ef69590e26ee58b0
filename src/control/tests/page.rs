//! The page as it stands in the binary: nothing inline, nothing from elsewhere, no markup made of
//! text.

use super::scripted::Running;
use crate::control::page::{CSS, HTML, ICON, JS};

#[tokio::test]
async fn the_page_and_its_parts_are_served_with_their_types() {
    let admin = Running::start().await;
    for (path, kind, text) in [
        ("/", "text/html; charset=utf-8", HTML),
        ("/page.css", "text/css; charset=utf-8", CSS),
        ("/page.js", "text/javascript; charset=utf-8", JS),
        ("/icon.svg", "image/svg+xml", ICON),
    ] {
        let response = admin.open("GET", path, &[], "").await;
        assert_eq!(response.headers()["content-type"], kind);
        assert_eq!(admin.get(path).await, (200, text.to_owned()));
    }
    admin.stop().await;
}

#[test]
fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
    assert!(!HTML.contains(" style="), "inline style");
    assert!(!HTML.contains("<style"), "inline style");
    assert_eq!(
        HTML.matches("<script").count(),
        HTML.matches("<script src=\"").count()
    );
    for handler in [
        " onclick",
        " onload",
        " onerror",
        " onsubmit",
        "javascript:",
    ] {
        assert!(!HTML.contains(handler), "{handler}");
    }
    for (name, text) in [("html", HTML), ("css", CSS), ("js", JS), ("icon", ICON)] {
        // The one address that stands in the files is the name of SVG's namespace.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("://"), "{name} names an address");
        assert!(
            !text.contains("url(") && !text.contains("@import"),
            "{name} loads something"
        );
    }
}

#[test]
fn text_never_becomes_markup() {
    for way in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "DOMParser",
        "createContextualFragment",
        "srcdoc",
        "eval(",
        "Function(",
        "setAttribute('on",
        "setAttribute('href",
        "setAttribute('style",
    ] {
        assert!(!JS.contains(way), "{way}");
    }
    assert!(JS.contains("textContent"));
}

#[test]
fn all_that_the_script_fills_is_in_the_page() {
    let quoted = |text: &str, before: &str, after: char| -> Vec<String> {
        text.split(before)
            .skip(1)
            .filter_map(|rest| rest.split(after).next().map(str::to_owned))
            .collect()
    };
    for id in quoted(JS, "$('", '\'') {
        assert!(HTML.contains(&format!("id=\"{id}\"")), "#{id}");
    }
    for action in quoted(HTML, "data-do=\"", '"') {
        let plain =
            JS.contains(&format!("  {action}:")) || JS.contains(&format!("  async {action}("));
        let named = JS.contains(&format!("'{action}'"));
        assert!(plain || named, "nothing is done by the button {action}");
    }
}
