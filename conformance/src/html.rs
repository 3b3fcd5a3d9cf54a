//! A report as one HTML page without anything outside of it: checks by backends, readable on a phone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::{
    junit::escaped,
    report::{BackendReport, CheckReport, Report, Status},
};

const STYLE: &str = "\
:root{color-scheme:light dark;--ok:#1a7f37;--bad:#cf222e;--none:#8c8c8c;--line:#8884}
body{font:15px/1.45 system-ui,sans-serif;margin:1rem;max-width:80rem}
h1{font-size:1.3rem}h2{font-size:1.05rem;margin-top:2rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
td.mark{text-align:center}
th:first-child,td:first-child{position:sticky;left:0;background:Canvas}
@media(max-width:40rem){th,td{padding:.25rem .35rem}td:first-child{white-space:normal;overflow-wrap:anywhere;min-width:8rem;max-width:8.5rem}}
tr.group th{padding-top:1rem;font-size:.95rem}
.passed{color:var(--ok)}.failed{color:var(--bad);font-weight:bold}.not_run{color:var(--none)}
.chip{display:inline-block;border:1px solid var(--line);border-radius:1rem;padding:0 .5rem;margin:.1rem;font-size:.85rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;border-left:3px solid var(--bad);padding-left:.7rem}
";

/// The page.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>Conformance</title>\n<style>\n{STYLE}</style></head><body>\n<h1>Conformance</h1>\n\
         <p><span class=\"passed\">✓ passed</span> · <span class=\"passed\">○ not declared, and refused as it must be</span> · <span class=\"failed\">✗ failed</span> · \
         <span class=\"not_run\">– not run, see below</span> · seed {}</p>\n",
        report.seed
    );
    page += &matrix(report);
    page += "<h2>Backends</h2>\n";
    for backend in &report.backends {
        describe(&mut page, backend);
    }
    page += "<h2 id=\"failures\">Failures</h2>\n";
    let failures: Vec<_> = all(report).filter(|check| check.status == Status::Failed).collect();
    if failures.is_empty() {
        page += "<p>None.</p>\n";
    }
    for check in failures {
        let reason = escaped(check.reason.as_deref().unwrap_or("no reason given"));
        // Writing to a string cannot fail.
        let _ = writeln!(page, "<h3 id=\"{0}\">{0}</h3><pre>{reason}</pre>", anchor(check));
    }
    page += "<h2>Not run</h2>\n<ul>\n";
    let mut reasons: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for check in all(report).filter(|check| check.status == Status::NotRun) {
        let reason = check.reason.as_deref().unwrap_or("no reason given");
        reasons.entry((&check.backend, reason)).or_default().push(check.path());
    }
    for ((backend, reason), checks) in reasons {
        let _ = writeln!(page, "<li>{}: {} — {}</li>", escaped(backend), escaped(&checks.join(", ")), escaped(reason));
    }
    page + "</ul>\n</body></html>\n"
}

fn all(report: &Report) -> impl Iterator<Item = &CheckReport> {
    report.backends.iter().flat_map(|backend| &backend.checks)
}

fn anchor(check: &CheckReport) -> String {
    escaped(&format!("{}::{}", check.backend, check.path()))
}

fn matrix(report: &Report) -> String {
    let mut table = String::from("<div class=\"scroll\"><table>\n<tr><th>check</th>");
    for backend in &report.backends {
        let _ = write!(table, "<th>{}<br><small>{}</small></th>", escaped(&backend.name), escaped(&backend.runs_on));
    }
    table += "</tr>\n<tr><td>all</td>";
    for backend in &report.backends {
        let (passed, failed) = (backend.count(Status::Passed, None), backend.count(Status::Failed, None));
        let class = if failed > 0 { "failed" } else { "passed" };
        let _ = write!(table, "<td class=\"mark {class}\">{passed}/{}</td>", passed + failed);
    }
    table += "</tr>\n";
    let cells: BTreeMap<(&str, String), &CheckReport> =
        all(report).map(|check| ((check.backend.as_str(), check.path()), check)).collect();
    let checks: BTreeSet<(&str, &str)> = all(report).map(|check| (check.group.as_str(), check.name.as_str())).collect();
    let mut group = "";
    for (in_group, name) in checks {
        if group != in_group {
            group = in_group;
            let columns = report.backends.len() + 1;
            let _ = writeln!(table, "<tr class=\"group\"><th colspan=\"{columns}\">{}</th></tr>", escaped(group));
        }
        let _ = write!(table, "<tr><td>{}</td>", escaped(name));
        for backend in &report.backends {
            table += &cell(cells.get(&(backend.name.as_str(), format!("{group}/{name}"))).copied());
        }
        table += "</tr>\n";
    }
    table + "</table></div>\n"
}

fn cell(check: Option<&CheckReport>) -> String {
    let Some(check) = check else {
        return "<td></td>".into();
    };
    let title = escaped(check.reason.as_deref().unwrap_or_default());
    match check.status {
        Status::Passed if check.reason.is_some() => {
            format!("<td class=\"mark passed\" title=\"{title}\">○</td>")
        }
        Status::Passed => "<td class=\"mark passed\">✓</td>".into(),
        Status::Failed => format!("<td class=\"mark\"><a class=\"failed\" href=\"#{}\">✗</a></td>", anchor(check)),
        Status::NotRun => format!("<td class=\"mark not_run\" title=\"{title}\">–</td>"),
    }
}

fn describe(page: &mut String, backend: &BackendReport) {
    let limits = &backend.limits;
    let _ = writeln!(
        page,
        "<h3>{}</h3>\n<p>{} {}, {}, consistency: {}. Limits: keys {} bytes, values {} bytes, metadata {} bytes, \
         dates to {} ns.</p>\n<p>",
        escaped(&backend.name),
        escaped(&backend.id),
        escaped(&backend.version),
        escaped(&backend.runs_on),
        escaped(&backend.consistency),
        limits.key,
        limits.value,
        limits.metadata,
        limits.time_granularity_ns,
    );
    for (name, _) in backend.capabilities.iter().filter(|(_, declared)| **declared) {
        let _ = write!(page, "<span class=\"chip\">{}</span>", escaped(name));
    }
    *page += "</p>\n";
}
