//! Benchmarks, by name.

use lexopt::{Parser, ValueExt};

use crate::{
    Result,
    shell::{cargo, step},
};

pub(crate) fn run(mut args: Parser) -> Result<()> {
    let name = args.value().map(|name| name.string());
    let name = name.unwrap_or_else(|_| Ok(String::new()))?;
    match name.as_str() {
        "layers" => step(&mut cargo(["bench", "--package", "storage-layer", "--bench", "layers"])),
        _ => Err(format!("there is no benchmark `{name}`; known is layers").into()),
    }
}
