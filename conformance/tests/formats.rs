//! The formats that other programs read, with texts that would break them if they were not escaped.

use storage_conformance::{
    html::html,
    junit::junit,
    report::{BackendReport, CheckReport, Report, Status},
};

fn report() -> Report {
    let check = |name: &str, status, reason: Option<&str>| CheckReport {
        backend: "<b>&\"".into(),
        name: name.into(),
        group: "list".into(),
        status,
        reason: reason.map(str::to_owned),
        duration_ms: 1500,
        seed: 7,
    };
    let checks = vec![
        check("good", Status::Passed, None),
        check("bad", Status::Failed, Some("expected <a> & \"b\", saw \u{1}")),
        check("unknown", Status::NotRun, Some("no \"server\"")),
    ];
    let backend =
        BackendReport { name: "<b>&\"".into(), runs_on: "embedded".into(), checks, ..BackendReport::default() };
    Report { seed: 7, backends: vec![backend] }
}

#[test]
fn junit_counts_and_escapes() {
    let xml = junit(&report());
    let suite = "<testsuite name=\"&lt;b&gt;&amp;&quot;\" tests=\"3\" failures=\"1\" skipped=\"1\" time=\"4.500\">";
    assert!(xml.contains(suite), "{xml}");
    assert!(
        xml.contains("<failure message=\"failed\">expected &lt;a&gt; &amp; &quot;b&quot;, saw \\u{1}</failure>"),
        "{xml}"
    );
    assert!(xml.contains("<skipped message=\"no &quot;server&quot;\"/>"), "{xml}");
    assert_eq!(xml.matches("<testcase ").count(), 3);
    assert_eq!(xml.matches("</testcase>").count(), 2);
}

#[test]
fn html_needs_nothing_from_outside_and_shows_every_check() {
    let page = html(&report());
    for mark in ["✓</td>", "✗</a>", "–</td>"] {
        assert_eq!(page.matches(mark).count(), 1, "{mark}");
    }
    assert!(page.contains("1/2</td>"), "one of the two that ran has passed");
    assert!(!page.contains("<b>&\"") && page.contains("&lt;b&gt;&amp;&quot;"), "names are escaped");
    assert!(!page.contains("http") && !page.contains("<script") && !page.contains("src="), "{page}");
}

#[test]
fn the_manifest_lists_the_checks_that_must_exist() {
    let manifest = include_str!("../checks.txt");
    let listed: Vec<&str> = manifest.lines().filter(|line| !line.starts_with('#')).collect();
    let mut existing: Vec<String> =
        storage_conformance::checks().iter().map(|c| format!("{}/{}", c.group, c.name)).collect();
    existing.sort();
    assert_eq!(existing, listed, "a check may only go together with its promise in docs/contract.md");
}
