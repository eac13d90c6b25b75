//! A writer for the little JSON that `status` prints.

use std::fmt::Write;

/// Builds one value, field by field. Commas and nesting are its business; order is the caller's.
#[derive(Default)]
pub(crate) struct Json {
    out: String,
    /// Whether the next item at this depth needs a comma before it.
    comma: bool,
}

impl Json {
    pub(crate) fn finish(self) -> String {
        self.out
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.push(',');
        }
        self.comma = true;
    }

    fn key(&mut self, name: &str) {
        self.separate();
        self.string(name);
        self.out.push(':');
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                    let _ = write!(self.out, "\\u{:04x}", c as u32);
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    /// An object as an array's item, or the outermost value.
    pub(crate) fn object(&mut self, fill: impl FnOnce(&mut Json)) {
        self.separate();
        self.nested('{', '}', fill);
    }

    pub(crate) fn object_field(&mut self, name: &str, fill: impl FnOnce(&mut Json)) {
        self.key(name);
        self.nested('{', '}', fill);
    }

    pub(crate) fn array_field(&mut self, name: &str, fill: impl FnOnce(&mut Json)) {
        self.key(name);
        self.nested('[', ']', fill);
    }

    fn nested(&mut self, open: char, close: char, fill: impl FnOnce(&mut Json)) {
        self.out.push(open);
        self.comma = false;
        fill(self);
        self.out.push(close);
        self.comma = true;
    }

    pub(crate) fn number(&mut self, name: &str, value: impl Into<u64>) {
        self.key(name);
        let _ = write!(self.out, "{}", value.into());
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        self.string(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_and_commas() {
        let mut j = Json::default();
        j.object(|j| {
            j.number("a", 1u32);
            j.array_field("b", |j| {
                j.object(|j| j.text("c", "d"));
                j.object(|_| ());
            });
            j.object_field("e", |_| ());
            j.number("f", u64::MAX);
        });
        assert_eq!(j.finish(), r#"{"a":1,"b":[{"c":"d"},{}],"e":{},"f":18446744073709551615}"#);
    }

    #[test]
    fn escapes() {
        let mut j = Json::default();
        j.object(|j| j.text("k\"", "a\\b\n\t\u{1}\u{7f}ä"));
        assert_eq!(j.finish(), "{\"k\\\"\":\"a\\\\b\\n\\u0009\\u0001\\u007fä\"}");
    }
}
