//! The answers of S3 to the requests that `object_store` does not make.

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use storage_core::Result;
use storage_object_store::{ListedObject, Page, http::time};

use crate::error::{self, S3};

/// Stands between the two parts of the place where a listing of versions goes on. No key holds it.
const AND: char = '\0';

/// What `GET /?versioning` answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Versioning {
    status: Option<String>,
}

/// What a listing of objects or of versions answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Listing {
    encoding_type: Option<String>,
    is_truncated: bool,
    next_continuation_token: Option<String>,
    next_key_marker: Option<String>,
    next_version_id_marker: Option<String>,
    contents: Vec<Object>,
    version: Vec<Object>,
    delete_marker: Vec<Object>,
    common_prefixes: Vec<Below>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    key: String,
    /// What a delete has left has none.
    size: Option<u64>,
    last_modified: Option<String>,
    #[serde(rename = "ETag")]
    e_tag: Option<String>,
    version_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Below {
    prefix: String,
}

/// Whether the bucket makes a version of every write.
pub(crate) fn versioned(body: &[u8]) -> Result<bool> {
    // The second is what moto, and whatever is made of a model of the interface, calls it.
    S3.expect(body, &["VersioningConfiguration", "GetBucketVersioningResponse", "GetBucketVersioningOutput"])?;
    let versioning: Versioning = quick_xml::de::from_reader(body).map_err(error::malformed_response)?;
    Ok(versioning.status.as_deref() == Some("Enabled"))
}

/// What a copy answers.
#[derive(Deserialize)]
struct Copy {
    #[serde(rename = "ETag")]
    e_tag: Option<String>,
}

/// The etag of what a copy has made.
pub(crate) fn copied(body: &[u8]) -> Result<Option<String>> {
    S3.expect(body, &["CopyObjectResult", "CopyObjectOutput"])?;
    let copy: Copy = quick_xml::de::from_reader(body).map_err(error::malformed_response)?;
    Ok(copy.e_tag)
}

/// The element of a listing of objects.
pub(crate) const OBJECTS: &[&str] = &["ListBucketResult"];
/// The element of a listing of versions, which some servers call as the operation is called.
pub(crate) const VERSIONS: &[&str] = &["ListVersionsResult", "ListObjectVersionsResult"];

/// A page of objects or versions, from an answer with one of these elements.
pub(crate) fn page(body: &[u8], elements: &[&str]) -> Result<Page> {
    S3.expect(body, elements)?;
    let listing: Listing = quick_xml::de::from_reader(body).map_err(error::malformed_response)?;
    let encoded = listing.encoding_type.as_deref() == Some("url");
    let text = |text: String| -> Result<String> {
        if !encoded {
            return Ok(text);
        }
        // A space may come as a plus; a plus comes encoded.
        let text = text.replace('+', " ");
        Ok(percent_decode_str(&text).decode_utf8().map_err(error::malformed_response)?.into_owned())
    };
    let found = |object: Object, deleted: bool| {
        Ok(ListedObject {
            name: text(object.key)?,
            size: object
                .size
                .or(deleted.then_some(0))
                .ok_or_else(|| error::malformed_response("an object without a size"))?,
            modified: object.last_modified.as_deref().and_then(time),
            etag: object.e_tag,
            version: object.version_id,
            deleted,
        })
    };
    let there = listing.contents.into_iter().chain(listing.version).map(|object| found(object, false));
    let deleted = listing.delete_marker.into_iter().map(|object| found(object, true));
    let next = match (listing.next_continuation_token, listing.next_key_marker) {
        _ if !listing.is_truncated => None,
        (Some(token), _) => Some(token),
        (None, Some(key)) => Some(format!("{}{AND}{}", text(key)?, listing.next_version_id_marker.unwrap_or_default())),
        (None, None) => return Err(error::malformed_response("truncated listing without a continuation token")),
    };
    Ok(Page {
        objects: there.chain(deleted).collect::<Result<_>>()?,
        prefixes: listing.common_prefixes.into_iter().map(|below| text(below.prefix)).collect::<Result<_>>()?,
        next,
    })
}

/// The two parts of the place where a listing of versions goes on.
pub(crate) fn markers(next: &str) -> (&str, &str) {
    next.split_once(AND).unwrap_or((next, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_interleaved_versions_keeps_spaces() {
        let body = b"<?xml version='1.0'?><ListVersionsResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>\
            <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextKeyMarker>%20a%2B</NextKeyMarker>\
            <NextVersionIdMarker>2</NextVersionIdMarker>\
            <DeleteMarker><Key>%20a</Key><VersionId>3</VersionId><LastModified>2026-01-02T03:04:05.000Z</LastModified></DeleteMarker>\
            <Version><Key>%20a</Key><VersionId>2</VersionId><LastModified>2026-01-02T03:04:05.000Z</LastModified><Size>7</Size>\
            <ETag>&quot;x&quot;</ETag></Version>\
            <DeleteMarker><Key>+b</Key><VersionId>1</VersionId><LastModified>2026-01-02T03:04:05.000Z</LastModified></DeleteMarker>\
            </ListVersionsResult>";
        let page = page(body, VERSIONS).unwrap();
        assert_eq!(markers(&page.next.unwrap()), (" a+", "2"));
        let names: Vec<_> = page.objects.iter().map(|found| (found.name.as_str(), found.deleted)).collect();
        assert_eq!(names, [(" a", false), (" a", true), (" b", true)]);
        assert_eq!((page.objects[0].size, page.objects[0].etag.as_deref()), (7, Some("\"x\"")));
    }

    #[test]
    fn what_is_no_answer_of_s3_is_said_to_be_none() {
        for body in [&b"<!DOCTYPE html><html><body>hello</body></html>"[..], b"", b"{}", b"<ListAllMyBucketsResult/>"] {
            assert!(page(body, OBJECTS).is_err() && page(body, VERSIONS).is_err() && versioned(body).is_err());
        }
        assert!(page(b"<ListBucketResult/>", OBJECTS).unwrap().objects.is_empty());
        let sizeless = b"<ListBucketResult><Contents><Key>k</Key></Contents></ListBucketResult>";
        assert!(page(sizeless, OBJECTS).is_err());
        assert!(versioned(b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>").unwrap());
        assert!(!versioned(b"<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>").unwrap());
        assert!(!versioned(b"<VersioningConfiguration/>").unwrap());
    }
}
