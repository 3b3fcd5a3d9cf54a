//! A report as JUnit XML, which build servers read. (The format is that of the Jenkins JUnit plugin's schema.)

use std::fmt::Write;

use crate::report::{CheckReport, Report, Status};

/// One test suite for each backend, one test case for each check.
#[must_use]
pub fn junit(report: &Report) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for backend in &report.backends {
        let (failed, skipped) = (backend.count(Status::Failed, None), backend.count(Status::NotRun, None));
        // Writing to a string cannot fail.
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" skipped=\"{skipped}\" time=\"{}\">",
            escaped(&backend.name),
            backend.checks.len(),
            seconds(backend.checks.iter().map(|check| check.duration_ms).sum()),
        );
        for check in &backend.checks {
            case(&mut xml, check);
        }
        xml += "  </testsuite>\n";
    }
    xml + "</testsuites>\n"
}

fn case(xml: &mut String, check: &CheckReport) {
    let (class, name) = (escaped(&format!("{}.{}", check.backend, check.group)), escaped(&check.name));
    let reason = escaped(check.reason.as_deref().unwrap_or_default());
    let _ = write!(xml, "    <testcase classname=\"{class}\" name=\"{name}\" time=\"{}\"", seconds(check.duration_ms));
    *xml += &match check.status {
        Status::Passed => "/>\n".to_owned(),
        Status::Failed => format!("><failure message=\"failed\">{reason}</failure></testcase>\n"),
        Status::NotRun => format!("><skipped message=\"{reason}\"/></testcase>\n"),
    };
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// For text and attributes of XML and HTML. Control characters, which XML 1.0 cannot express, are shown as escapes.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}
