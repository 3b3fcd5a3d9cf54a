//! Listings: the emulator's answers, sorted and cut into pages here.

use std::{collections::BTreeMap, fmt::Write};

use data_encoding::BASE64URL_NOPAD;
use http::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use quick_xml::escape::escape;

use crate::{
    emulator::{Emulator, Resource},
    refusal::{Body, Refusal, Result, xml},
    request::Asked,
};

/// The most that Google puts on a page.
const PAGE: usize = 1000;

/// `GET` of a bucket with `list-type=2`.
pub(crate) async fn list(emulator: &Emulator, asked: &Asked) -> Result<Response<Body>> {
    asked.only_headers(&[])?;
    let known = ["continuation-token", "delimiter", "encoding-type", "list-type", "max-keys", "prefix", "start-after"];
    if let Some(unknown) = asked.parameters().into_iter().find(|name| !known.contains(name)) {
        return Err(Refusal::unknown(format_args!("the parameter {unknown} of a listing")));
    }
    if asked.parameter("list-type") != Some("2") {
        return Err(Refusal::unknown("listings without list-type=2"));
    }
    let url = match asked.parameter("encoding-type") {
        None => false,
        Some("url") => true,
        Some(_) => return Err(Refusal::invalid("encoding-type is not url")),
    };
    let most = asked.parameter("max-keys").map_or(Ok(PAGE), str::parse);
    let most = most.map_err(|_| Refusal::invalid("max-keys is no number"))?.min(PAGE);
    let after = after(asked)?;
    let (mut page, more) = page(emulator, asked, after, most + 1).await?;
    let more = more || page.len() > most;
    while page.len() > most {
        page.pop_last();
    }
    let next = page.last_key_value().map(|(name, _)| BASE64URL_NOPAD.encode(name.as_bytes())).filter(|_| more);

    let name = |name: &str| match url {
        true => utf8_percent_encode(name, NON_ALPHANUMERIC).to_string(),
        false => escape(name).into_owned(),
    };
    let mut text = String::from("<ListBucketResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'>");
    // Writing to a string cannot fail.
    let _ = write!(text, "<Name>{}</Name><KeyCount>{}</KeyCount>", escape(&asked.bucket), page.len());
    let _ = write!(text, "<Prefix>{}</Prefix><MaxKeys>{most}</MaxKeys>", name(asked.parameter("prefix").unwrap_or("")));
    let _ = write!(text, "<IsTruncated>{more}</IsTruncated>");
    if url {
        text += "<EncodingType>url</EncodingType>";
    }
    if let Some(next) = next {
        let _ = write!(text, "<NextContinuationToken>{next}</NextContinuationToken>");
    }
    for (position, object) in &page {
        let Some(object) = object else {
            let _ = write!(text, "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", name(position));
            continue;
        };
        let (size, etag) = (object.size()?, object.etag()?);
        let time = object.updated()?.format("%Y-%m-%dT%H:%M:%S%.3fZ");
        let _ = write!(
            text,
            "<Contents><Key>{}</Key><Generation>{}</Generation><MetaGeneration>1</MetaGeneration><LastModified>{time}\
             </LastModified><ETag>{}</ETag><Size>{size}</Size></Contents>",
            name(position),
            object.generation,
            escape(&etag),
        );
    }
    Ok(xml(&(text + "</ListBucketResult>")))
}

/// Where the page begins, exclusively.
fn after(asked: &Asked) -> Result<Option<String>> {
    match (asked.parameter("continuation-token"), asked.parameter("start-after")) {
        (Some(token), _) => {
            let name = BASE64URL_NOPAD.decode(token.as_bytes()).ok().and_then(|name| String::from_utf8(name).ok());
            name.map(Some).ok_or_else(|| Refusal::invalid("the continuation token is none of this translator"))
        }
        // Whether a directory that begins before the name is shown, the reference does not say.
        (None, Some(_)) if asked.parameter("delimiter").is_some() => {
            Err(Refusal::unknown("start-after together with delimiter"))
        }
        (None, after) => Ok(after.map(str::to_owned)),
    }
}

/// At least `enough` objects and directories behind this name, or all, and whether there are more.
async fn page(
    emulator: &Emulator,
    asked: &Asked,
    after: Option<String>,
    enough: usize,
) -> Result<(BTreeMap<String, Option<Resource>>, bool)> {
    let mut found = BTreeMap::new();
    let (mut token, most) = (None::<String>, enough.to_string());
    loop {
        // The emulator shows all directories on its first page, whichever objects come later.
        let paged = asked.parameter("delimiter").is_none();
        let mut query: Vec<_> = paged.then_some(("maxResults", most.as_str())).into_iter().collect();
        for (theirs, ours) in [("prefix", "prefix"), ("delimiter", "delimiter")] {
            query.extend(asked.parameter(theirs).filter(|text| !text.is_empty()).map(|text| (ours, text)));
        }
        // This includes the name itself, which is left out below.
        query.extend(after.as_deref().map(|name| ("startOffset", name)));
        query.extend(token.as_deref().map(|token| ("pageToken", token)));
        let listing = emulator.list(&asked.bucket, &query).await?.ok_or_else(Refusal::no_bucket)?;
        let objects = listing.items.into_iter().map(|object| (object.name.clone(), Some(object)));
        let directories = listing.prefixes.into_iter().map(|name| (name, None));
        let behind = |(name, _): &(String, _)| after.as_ref().is_none_or(|after| name > after);
        found.extend(objects.chain(directories).filter(behind));
        token = listing.next_page_token.filter(|token| !token.is_empty());
        if token.is_none() || found.len() >= enough {
            return Ok((found, token.is_some()));
        }
    }
}
