//! Transactions, and what became of writes whose answers were lost.

use axum::http::StatusCode;
use storage_core::ErrorKind;
use storage_rest_wire::{Problem, TransactionJson, WriteId, WrittenJson};

use crate::{
    answer::{Answer, Failure},
    call::Call,
    writes::Outcome,
};

/// Begins a transaction.
#[utoipa::path(post, path = "/v1/transactions", tag = "v1",
    responses(
        (status = 201, description = "it has begun", body = TransactionJson),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn begin(call: Call) -> Result<Answer, Failure> {
    call.no_params()?;
    if call.lease.is_some() {
        return Err(Failure::unsupported("a transaction within a transaction"));
    }
    let (app, owner) = (call.app.clone(), call.grant.name.clone());
    // The client may go while the store makes it wait: then it is rolled back when its lease has run out.
    let begun = app.tasks.spawn({
        let app = app.clone();
        async move {
            let config = &app.config;
            app.transactions.begin(&app.storage, &owner, config.max_transactions, config.lease).await
        }
    });
    let id = begun.await.map_err(|_| Failure::new(ErrorKind::Other, "the transaction cannot be begun"))??;
    let lease_ms = app.config.lease.as_millis().try_into().unwrap_or(u64::MAX);
    Ok(Answer::json(StatusCode::CREATED, &TransactionJson { id, lease_ms }))
}

/// Makes all writes of a transaction visible at once.
#[utoipa::path(post, path = "/v1/transactions/{id}/commit", tag = "v1",
    params(("id" = String, Path, description = "the transaction")),
    responses(
        (status = 204, description = "it is committed"),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn commit(call: Call) -> Result<Answer, Failure> {
    call.no_params()?;
    let id = call.uri.path().rsplit('/').nth(1).unwrap_or_default().to_owned();
    let (app, owner) = (call.app.clone(), call.grant.name.clone());
    call.write(move |_| async move {
        app.transactions.take(&id, &owner)?.commit().await?;
        Ok(Answer::empty(StatusCode::NO_CONTENT))
    })
    .await
}

/// Forgets all writes of a transaction.
#[utoipa::path(delete, path = "/v1/transactions/{id}", tag = "v1",
    params(("id" = String, Path, description = "the transaction")),
    responses(
        (status = 204, description = "it is rolled back"),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn rollback(call: Call) -> Result<Answer, Failure> {
    call.no_params()?;
    let id = call.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let (app, owner) = (call.app.clone(), call.grant.name.clone());
    call.write(move |_| async move {
        app.transactions.take(&id, &owner)?.rollback().await?;
        Ok(Answer::empty(StatusCode::NO_CONTENT))
    })
    .await
}

/// What became of a write. One that has not arrived will not be done any more.
#[utoipa::path(post, path = "/v1/writes/{id}", tag = "v1",
    params(("id" = String, Path, description = "the write id")),
    responses(
        (status = 200, description = "what became of it", body = WrittenJson),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn settle(call: Call) -> Result<Answer, Failure> {
    call.no_params()?;
    if !call.grant.access.write {
        return Err(Failure::denied("the token lacks the scope `write`"));
    }
    let id: WriteId = call.uri.path().rsplit('/').next().unwrap_or_default().parse()?;
    let outcome = call.app.writes.settle(&call.grant.name, &id, "")?.outcome().await?;
    let written = match outcome {
        Outcome::Void => WrittenJson::default(),
        Outcome::Answered(answer) => {
            WrittenJson { done: true, status: answer.status.as_u16(), body: serde_json::from_slice(&answer.body).ok() }
        }
    };
    Ok(Answer::json(StatusCode::OK, &written))
}
