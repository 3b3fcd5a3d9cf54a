//! Listings: lines that come one after the other, and a last one without which they were cut off.

use futures_util::{Stream, StreamExt, stream};
use reqwest::{Request, Response};
use storage_core::{EntryStream, Result};
use storage_rest_wire::{Line, Lines};

use crate::{connect::Remote, error, http::Http};

impl Remote {
    /// The items of a listing, whose request can be made twice.
    pub(crate) async fn lines(
        &self,
        request: Request,
    ) -> Result<impl Stream<Item = Result<Line>> + Send + 'static + use<>> {
        let response = self.http().read(request).await?;
        match response.status().is_success() {
            true => Ok(items(self.http().clone(), response)),
            false => Err(self.refused(response).await),
        }
    }

    /// The same where all are entries.
    pub(crate) async fn entries(&self, request: Request) -> Result<EntryStream> {
        let lines = self.lines(request).await?;
        let entries = lines.map(|line| match line? {
            Line::Entry(entry) => entry.into_entry(None),
            _ => Err(error::strange("a line is no entry")),
        });
        Ok(entries.boxed())
    }
}

fn items(http: Http, response: Response) -> impl Stream<Item = Result<Line>> + Send + 'static {
    let begun = Some((http, response, Lines::default(), 0_u64));
    stream::unfold(begun, |state| async move {
        let (http, mut response, mut lines, count) = state?;
        let failed = |e| Some((Err(e), None));
        loop {
            match lines.next_line() {
                Ok(None) => {}
                Err(e) => return failed(e),
                Ok(Some(line)) => match serde_json::from_slice(&line) {
                    Ok(Line::End(all)) if all == count => return None,
                    Ok(Line::End(_)) => return failed(error::broke_off()),
                    Ok(Line::Error(problem)) => return failed((*problem).into()),
                    Ok(item) => return Some((Ok(item), Some((http, response, lines, count + 1)))),
                    Err(e) => return failed(error::strange("a line cannot be read").with_source(e)),
                },
            }
            match http.piece(&mut response).await {
                Ok(Some(piece)) => lines.push(&piece),
                Ok(None) => return failed(error::broke_off()),
                Err(e) => return failed(e),
            }
        }
    })
}
