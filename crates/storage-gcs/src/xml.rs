//! The answers of Google to the requests that `object_store` does not make.

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use storage_core::Result;
use storage_object_store::{ListedObject, Page, http::time};

use crate::error::{self, GOOGLE};

/// What a listing answers. A document of another kind is none.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    encoding_type: Option<String>,
    is_truncated: bool,
    next_continuation_token: Option<String>,
    #[serde(default)]
    contents: Vec<Object>,
    #[serde(default)]
    common_prefixes: Vec<Below>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    key: String,
    size: u64,
    last_modified: Option<String>,
    #[serde(rename = "ETag")]
    e_tag: Option<String>,
    generation: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Below {
    prefix: String,
}

/// A page of objects.
pub(crate) fn page(body: &[u8]) -> Result<Page> {
    GOOGLE.expect(body, &["ListBucketResult"])?;
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
    let found = |object: Object| {
        Ok(ListedObject {
            name: text(object.key)?,
            size: object.size,
            modified: object.last_modified.as_deref().and_then(time),
            etag: object.e_tag,
            version: object.generation,
            deleted: false,
        })
    };
    let next = match listing.next_continuation_token {
        _ if !listing.is_truncated => None,
        Some(token) => Some(token),
        None => return Err(error::malformed_response("truncated listing without a continuation token")),
    };
    Ok(Page {
        objects: listing.contents.into_iter().map(found).collect::<Result<_>>()?,
        prefixes: listing.common_prefixes.into_iter().map(|below| text(below.prefix)).collect::<Result<_>>()?,
        next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_spaces_and_tells_generations() {
        let body = b"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'>\
            <Name>b</Name><Prefix/><EncodingType>url</EncodingType><KeyCount>2</KeyCount><IsTruncated>true</IsTruncated>\
            <NextContinuationToken>t</NextContinuationToken>\
            <Contents><Key>%20a%2B</Key><Generation>1795332287634988</Generation><MetaGeneration>1</MetaGeneration>\
            <LastModified>2026-01-02T03:04:05.006Z</LastModified><ETag>&quot;x&quot;</ETag><Size>7</Size></Contents>\
            <CommonPrefixes><Prefix>a%2Fb/</Prefix></CommonPrefixes></ListBucketResult>";
        let page = page(body).unwrap();
        let [object] = &page.objects[..] else { panic!("one object") };
        assert_eq!((object.name.as_str(), object.size), (" a+", 7));
        assert_eq!(object.version.as_deref(), Some("1795332287634988"));
        assert_eq!((page.prefixes, page.next.as_deref()), (vec!["a/b/".to_owned()], Some("t")));
    }

    #[test]
    fn what_is_no_answer_of_google_is_said_to_be_none() {
        for body in [&b"<html><body>hello</body></html>"[..], b"", b"{}", b"<ListBucketResult/>"] {
            assert!(page(body).is_err());
        }
    }
}
