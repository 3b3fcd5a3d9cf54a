//! Benchmarks: without a name those beside other libraries, which write docs/benchmarks.md and its plot.

use lexopt::{Arg, Parser, ValueExt};

use crate::{
    Result, services,
    shell::{cargo, root, step},
};

pub(crate) fn run(mut args: Parser) -> Result<()> {
    let (mut options, mut sql, mut streams) = (Vec::new(), false, false);
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Value(name) if name == "layers" && options.is_empty() => {
                crate::no_more(args)?;
                return step(&mut cargo(["bench", "--package", "storage-layer", "--bench", "layers"]));
            }
            Arg::Value(name) => {
                return Err(format!("there is no benchmark `{}`; known is layers", name.display()).into());
            }
            Arg::Long("sql") => sql = true,
            Arg::Long("streams") => streams = true,
            Arg::Long("only") => options.extend(["--only".into(), args.value()?.string()?]),
            Arg::Long("quick") => options.push("--quick".into()),
            Arg::Long("dir") => options.extend(["--dir".into(), args.value()?.string()?]),
            other => return Err(other.unexpected().into()),
        }
    }
    if sql || streams {
        let (manifest, target) = (root().join("bench/opendal/Cargo.toml"), root().join("target/opendal"));
        let mut build = cargo(["build", "--release", "--locked", "--manifest-path"]);
        step(build.arg(manifest).arg("--target-dir").arg(&target))?;
        options.extend(["--opendal".into(), target.join("release/bench-opendal").display().to_string()]);
        options.extend(sql.then(|| "--sql".into()));
        options.extend(streams.then(|| "--streams".into()));
        services::up_needed()?;
    }
    let mut bench = cargo(["run", "--release", "--package", "bench", "--"]);
    services::provide(&mut bench)?;
    step(bench.args(options))
}
