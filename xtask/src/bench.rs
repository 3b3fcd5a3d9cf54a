//! Benchmarks: without a name those beside other libraries, which write docs/benchmarks.md and its plot.

use lexopt::{Arg, Parser, ValueExt};

use crate::{
    Result,
    shell::{cargo, step},
};

pub(crate) fn run(mut args: Parser) -> Result<()> {
    let mut options = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Value(name) if name == "layers" && options.is_empty() => {
                crate::no_more(args)?;
                return step(&mut cargo(["bench", "--package", "storage-layer", "--bench", "layers"]));
            }
            Arg::Value(name) => {
                return Err(format!("there is no benchmark `{}`; known is layers", name.display()).into());
            }
            Arg::Long("sql") => options.push("--sql".into()),
            Arg::Long("quick") => options.push("--quick".into()),
            Arg::Long("dir") => options.extend(["--dir".into(), args.value()?.string()?]),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut bench = cargo(["run", "--release", "--package", "bench", "--"]);
    step(bench.args(options))
}
