//! OpenDAL's services in a process of their own. `bench-opendal SERVICE ADDRESS TABLE` is for SQL: it takes lines `operation tasks
//! times` on its input and answers each with the nanoseconds that took. `bench-opendal --transfer OpenDAL up|down KEY MIB` is for S3.
//! What is measured, and how, is that of the benchmark itself.
#![allow(clippy::print_stdout, reason = "the answers go to standard output")]
#![allow(dead_code, reason = "the benchmark measures more operations than these services have")]

#[path = "../../src/measure.rs"]
mod measure;
#[path = "../../src/operators.rs"]
mod operators;
#[path = "../../src/subject.rs"]
mod subject;
#[path = "../../src/transfer.rs"]
mod transfer;

use futures_util::TryStreamExt;
use opendal::{Operator, services};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

use crate::{
    measure::Contestant,
    subject::Operation,
    transfer::{Bucket, PART, PARTS, Pieces, Transfer},
};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// The services' builders have the same methods and no trait for them.
macro_rules! columns {
    ($builder:expr, $address:expr, $table:expr) => {
        $builder.connection_string($address).table($table).key_field("k").value_field("v")
    };
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [option, _, what @ ..] = &arguments[..]
        && option == "--transfer"
    {
        rustls::crypto::ring::default_provider().install_default().map_err(|_| "there is a provider already")?;
        opendal_http_transport_reqwest::install_default();
        println!("{}", transfer::run(&s3()?, what).await?);
        return Ok(());
    }
    let [service, address, table] = &arguments[..] else {
        return Err("it takes a service, an address and a table".into());
    };
    let operator = match service.as_str() {
        "sqlite" => Operator::new(columns!(services::Sqlite::default(), address, table))?,
        "postgresql" => Operator::new(columns!(services::Postgresql::default(), address, table))?,
        "mysql" => Operator::new(columns!(services::Mysql::default(), address, table))?,
        other => return Err(format!("there is no service {other:?}").into()),
    };
    subject::fill_small(&operator).await?;
    subject::fill_replaced(&operator).await?;
    println!("ready{}", if operator.info().capability().list { ", lists" } else { "" });
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let [operation, tasks, times] = numbers[..] else {
            return Err("a line has three numbers".into());
        };
        let operation = *Operation::ALL.get(operation).ok_or("an unknown operation")?;
        println!("{}", operator.sample(operation, tasks, times).await?.as_nanos());
    }
    Ok(())
}

fn s3() -> Result<Operator> {
    let bucket = Bucket::given()?;
    let builder = services::S3::default().bucket(&bucket.name).endpoint(&bucket.endpoint).region("us-east-1");
    let builder = builder.access_key_id(&bucket.key).secret_access_key(&bucket.secret);
    Ok(Operator::new(builder.disable_config_load().disable_ec2_metadata())?)
}

impl Transfer for Operator {
    async fn up(&self, key: &str, pieces: Pieces) -> Result<()> {
        let mut writer = self.writer_with(key).chunk(PART).concurrent(PARTS).await?;
        for piece in pieces {
            writer.write(piece).await?;
        }
        writer.close().await?;
        Ok(())
    }

    async fn down(&self, key: &str) -> Result<u64> {
        let mut pieces = self.reader(key).await?.into_bytes_stream(..).await?;
        let mut len = 0;
        while let Some(piece) = pieces.try_next().await? {
            len += piece.len() as u64;
        }
        Ok(len)
    }
}
