//! The text format of Prometheus (version 0.0.4): families of samples, each with a line that says what it is.

use std::fmt::{Display, Write};

/// What a family's numbers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// They only grow, and begin at zero with the process.
    Counter,
    /// They go up and down.
    Gauge,
}

/// A page of numbers in the making.
#[derive(Debug, Default)]
pub(super) struct Page(String);

/// A family of samples under one name.
pub(super) struct Family<'p> {
    page: &'p mut Page,
    name: &'static str,
}

impl Page {
    /// The content type of the finished page.
    pub(super) const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a family. Each name comes once.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, about: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a text cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {about}\n# TYPE {name} {kind}");
        Family { page: self, name }
    }

    /// A family of one sample.
    pub(super) fn counter(&mut self, name: &'static str, about: &str, value: impl Display) {
        self.family(name, Kind::Counter, about).sample(&[], value);
    }

    /// A family of one sample.
    pub(super) fn gauge(&mut self, name: &'static str, about: &str, value: impl Display) {
        self.family(name, Kind::Gauge, about).sample(&[], value);
    }

    /// A family of one sample that says yes or no.
    pub(super) fn flag(&mut self, name: &'static str, about: &str, is_so: bool) {
        self.gauge(name, about, u8::from(is_so));
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let text = &mut self.page.0;
        text.push_str(self.name);
        for (place, (name, label)) in labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            let _ = write!(text, "{before}{name}=\"{}\"", escaped(label));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(text, "{after} {value}");
    }
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_head_for_each_family_and_a_line_for_each_sample() {
        let mut page = Page::default();
        page.flag("a", "Whether.", true);
        let mut family = page.family("b_total", Kind::Counter, "How many.");
        family.sample(&[("x", "1"), ("y", "a\"\\\nb")], 7);
        family.sample(&[("x", ""), ("y", "")], 0);
        assert_eq!(
            page.finish(),
            "# HELP a Whether.\n# TYPE a gauge\na 1\n# HELP b_total How many.\n# TYPE b_total counter\n\
             b_total{x=\"1\",y=\"a\\\"\\\\\\nb\"} 7\nb_total{x=\"\",y=\"\"} 0\n"
        );
    }
}
