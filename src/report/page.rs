//! Pages of HTML that need no other file: their head, and text made safe for them.

/// The beginning of a page, up to its heading.
#[must_use]
pub fn begin(title: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>{title}</title><style>body{{font:15px \
         sans-serif;max-width:60em;margin:2em auto}}table{{border-collapse:collapse}}td,th{{padding:2px \
         10px;text-align:left;border-bottom:1px solid #ddd}}svg{{max-width:100%;height:auto;font:12px \
         sans-serif}}</style>\n<h1>{title}</h1>\n"
    )
}

/// `text` as the content of an element or of an attribute in double quotes.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_wrote_stays_text() {
        let page = begin("a<script>&\"");
        assert!(page.contains("<h1>a&lt;script&gt;&amp;&quot;</h1>"), "{page}");
        assert!(!page.contains("<script"));
    }
}
