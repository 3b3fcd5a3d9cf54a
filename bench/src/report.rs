//! The tables and the text around them, as Markdown.

use std::fmt::Write;

use crate::{
    groups::{Group, OURS},
    machine::{Machine, version},
    measure::{Measured, Row},
    notes,
};

/// A peer whose median is this much below ours is called faster.
const FASTER: f64 = 0.95;

pub(crate) fn markdown(machine: &Machine, groups: &[Group], quick: bool) -> String {
    let Machine { cores, filesystem, system, date, load } = machine;
    let (object_store, opendal) = (version("object_store"), version("opendal"));
    let mut text = format!(
        "<!-- Written by `cargo xtask bench`. -->\n# Benchmarks\n\n\
         storage-memory and storage-fs beside object_store {object_store} (`InMemory`, `LocalFileSystem`) and OpenDAL \
         {opendal} (services `memory` and `fs`), measured side by side in one run of `cargo xtask bench` on {date}: \
         {cores} cores, {system}, files on {filesystem}, optimised build, a Tokio runtime with a thread per core.\n\n",
    );
    if *load >= 1.0 {
        let _ = write!(
            text,
            "**Other processes were running:** the load average before the run was {load:.1}. Who is ahead of whom is \
             comparable, since all were measured in turns; the times themselves are longer than on a quiet machine.\n\n",
        );
    }
    if quick {
        text.push_str("**A quick run**, with a fifth of the samples.\n\n");
    }
    text.push_str(METHOD);
    text.push_str(&tables(groups));
    text.push_str("![The same numbers as bars](benchmarks.svg)\n\n## Where a peer is faster, and why\n\n");
    text.push_str(&faster(groups));
    text
}

const METHOD: &str = "\
Each cell is the median of the elapsed time per operation, with the 10th to 90th percentile of the samples; lower is better, \
and the fastest of a row is bold where its spread does not touch another's. With 16 in flight, 16 tasks run the operation at \
the same time, and the time is that of all divided by their number. A sample repeats the operation for about 30 ms, or runs it \
once in each task if that takes longer. The libraries take turns within each round of samples. Every result is checked: the \
length of what was read, the number of entries, and afterwards all that was written.

- *put*, *get*, *stat*: values of 4 KiB. A put replaces one of 64 values; get and stat go over 10,000 values in one directory, \
which the system has cached. The time includes making the library's key from a string.
- *list*: these 10,000 entries under their prefix, all consumed.
- *stream*: 16 MiB, written in pieces of 1 MiB and read in pieces, in those of 1 MiB where the library lets the caller choose.
- *Durable* means that an acknowledged write survives power loss: the file is synced before it is renamed, its directory after. \
Only equal promises are compared. OpenDAL syncs the file and never its directory, and has no option for either: it is durable \
in no case, and cannot leave the sync out. Its writes therefore stand in a table of their own. In all of them a value is \
written elsewhere and renamed into place (`atomic_write_dir` in OpenDAL).
- Not equal, and not to be made equal: this project's entries carry metadata, time of creation and an etag that is never used \
again, kept beside the value as an extended attribute; a write takes a lock that other processes see; listings come in the order \
of the keys. The peers' files have none of that, and their listings of files are in no order.

";

const SOURCES: &str = "\
The reasons were read in the sources of both and, for files, in traces of system calls; how much each contributes was not \
measured.

";

/// A table for each group.
pub(crate) fn tables(groups: &[Group]) -> String {
    let mut text = String::new();
    for group in groups {
        let _ = write!(text, "## {}\n\n| operation | in flight |", group.name);
        let libraries = group.rows.first().map_or(&[][..], |row| &row.measured);
        for measured in libraries {
            let _ = write!(text, " {} |", measured.library);
        }
        let _ = writeln!(text, " samples |\n|---|---|{}---|", "---|".repeat(libraries.len()));
        for row in &group.rows {
            let _ = write!(text, "| {} | {} |", row.operation, row.tasks);
            for Measured { library, .. } in libraries {
                let measured = row.measured.iter().find(|measured| measured.library == *library);
                let _ = write!(text, " {} |", measured.map_or_else(|| "–".into(), |measured| cell(row, measured)));
            }
            let _ = writeln!(text, " {} |", row.measured.first().map_or(0, |m| m.samples));
        }
        text.push('\n');
    }
    text
}

fn cell(row: &Row, measured: &Measured) -> String {
    let mut others = row.measured.iter().filter(|other| other.library != measured.library);
    let fastest = row.measured.len() > 1 && others.all(|other| measured.spread.1 < other.spread.0);
    let (median, (low, high)) = (time(measured.median), measured.spread);
    let median = if fastest { format!("**{median}**") } else { median };
    format!("{median} ({} – {})", time(low), time(high))
}

/// Nanoseconds in the unit that reads best, with three digits.
pub(crate) fn time(nanoseconds: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")];
    let (factor, unit) = units.into_iter().find(|(factor, _)| nanoseconds >= *factor).unwrap_or((1.0, "ns"));
    let number = nanoseconds / factor;
    let digits = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.digits$} {unit}")
}

/// The rows in which ours is not the fastest.
fn faster(groups: &[Group]) -> String {
    let mut lines = String::new();
    for group in groups {
        for row in &group.rows {
            let Some(ours) = row.measured.iter().find(|m| m.library == OURS) else { continue };
            for peer in row.measured.iter().filter(|m| m.median < ours.median * FASTER) {
                let sure = if peer.spread.1 < ours.spread.0 { "" } else { " (the spreads overlap)" };
                let why = notes::why(group.name, row.operation, peer.library).unwrap_or("Not looked into.");
                let _ = writeln!(
                    lines,
                    "| {} | {}, {} in flight | {} | {:.2}×{sure} | {why} |",
                    group.name,
                    row.operation,
                    row.tasks,
                    peer.library,
                    ours.median / peer.median,
                );
            }
        }
    }
    if lines.is_empty() {
        return "Nowhere in this run.\n".into();
    }
    format!("{SOURCES}| where | operation | peer | faster by | why |\n|---|---|---|---|---|\n{lines}")
}
